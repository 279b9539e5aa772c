"""The letters of shapes, as the comments and docstrings of the source give them: B, N, K, D, ..."""

from collections.abc import Iterator

from dinat_ref.analysis.recording.run import Recording, State

AXES = ("X", "Y")


def shape_letters(recording: Recording) -> Iterator[dict[str, list[str]]]:
    """Name the axes of the tensors that each step binds, where the source does.

    A comment counts where it fits the tensor's rank. Without one, a tensor has the letters that it had under another
    name, or those of the tensor of the same shape that it replaces.

    Example:
        >>> from dinat_ref import Neighborhood
        >>> from dinat_ref.analysis.recording.problem import Problem
        >>> from dinat_ref.analysis.recording.run import record
        >>> recording = record("gather", Problem("one axis", Neighborhood((5,), 3)))
        >>> next(letters for letters in shape_letters(recording) if "neighbors" in letters)
        {'neighbors': ['B', 'N', 'K', 'Hkv', 'D']}
    """
    of_value: dict[int, list[str]] = {}
    of_name: dict[tuple[int, str], tuple[list[int], list[str]]] = {}
    for step, state in recording.states():
        source, found = recording.sources[step.source], {}
        said = source.letters(step.statement, step.function)
        for name, number in step.changed.items():
            shape = _shape(state, number)
            if shape is None:
                continue
            fitting = [fits for text in said.get(name, []) if (fits := _expand(text, len(shape)))]
            before_shape, before = of_name.get((step.call, name), ([], []))
            letters = fitting[0] if fitting else of_value.get(number) or (before if before_shape == shape else [])
            if letters:
                found[name] = of_value[number] = letters
                of_name[step.call, name] = shape, letters
        yield found


def _shape(state: State, number: int) -> list[int] | None:
    entry = state.recording.values.entries[number]
    return entry["shape"] if isinstance(entry, dict) and "shape" in entry else None


def _expand(text: str, rank: int) -> list[str] | None:
    """Split "B, *layout, H, D" into one word per axis; None where the rank is another."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    starred = [word for word in words if word.startswith("*")]
    if len(starred) == 1:
        place, missing = words.index(starred[0]), rank - len(words) + 1
        names = (
            AXES[:missing] if starred[0] == "*layout" else [f"{starred[0][1:] or '*'} {n + 1}" for n in range(missing)]
        )
        words[place : place + 1] = names
    return words if len(words) == rank and not any(word.startswith("*") for word in words) else None
