"""Going through a pickle without running it: what it would import, what it says, how large its tuples would be.

A pickle is a program for a machine with a stack and a memory. A tuple that holds another one twice, which holds another
one twice, and so on, takes a few bytes for each, and as a key of a dictionary its hash takes 2^n steps. So the program
is followed on a stack of weights: what a tuple weighs is what it holds, counted as often as it is held.
"""

import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from typing import Any

MOST_STEPS = 300_000  # of a program; each tensor takes 30
HEAVIEST = 10**6  # the state of Python's random generator, a tuple, weighs 626
MARK = -1  # on the stack: where the items of a list, a tuple or a dictionary begin
UNHASHABLE = ("LIST", "DICT", "APPEND", "APPENDS", "SETITEM", "SETITEMS")  # weigh nothing, and no more when they grow


def scan(file: Any, programs: int) -> tuple[set[str], set[str]]:
    r"""Step through pickles that lie one after the other.

    Returns:
        The names that they would import, and the words that they hold.
    Raises:
        ValueError: they are damaged, too long or too heavy.
    Source: Python's pickletools, which describes each instruction.
    Example:
        >>> import io
        >>> scan(io.BytesIO(b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R."), programs=1)
        ({'os.system'}, {'ls'})
    """
    names: set[str] = set()
    words: set[str] = set()
    steps = 0
    weight = 0
    try:
        for _ in range(programs):
            stack: list[int] = []
            memory: dict[int, int] = {}
            for operation, argument, _ in pickletools.genops(file):
                steps += 1
                weight = _follow(operation, argument, stack, memory)
                if steps > MOST_STEPS or weight > HEAVIEST:
                    break
                if operation.name in ("GLOBAL", "INST"):
                    names.add(_name_of_today(str(argument)))
                elif operation.name == "STACK_GLOBAL":  # torch.save does not write it: the name is on the stack
                    names.add("something that is named in another way than torch.save does")
                elif isinstance(argument, str):
                    words.add(argument)
    except Exception:  # of a damaged program, pickletools lets out whatever it stumbles over
        if not names:
            raise ValueError("it is damaged, or no file of torch.save") from None
    if steps > MOST_STEPS:
        raise ValueError(f"it takes more than {MOST_STEPS:,} steps to describe its tensors")
    if weight > HEAVIEST:
        raise ValueError("it holds tuples within tuples without end")
    return names, words


def _follow(operation: Any, argument: Any, stack: list[int], memory: dict[int, int]) -> int:
    """Do to a stack of weights what an instruction does to the stack of the machine: the weight that is now on top."""
    takes, gives = operation.stack_before, operation.stack_after
    taken: list[int] = []
    if operation.name in ("PUT", "BINPUT", "LONG_BINPUT"):
        memory[int(argument)] = stack[-1]
    elif operation.name == "MEMOIZE":
        memory[len(memory)] = stack[-1]
    elif operation.name in ("GET", "BINGET", "LONG_BINGET"):
        stack.append(memory[int(argument)])
    elif operation.name == "MARK":
        stack.append(MARK)
    else:
        if pickletools.markobject in takes:
            while (weight := stack.pop()) != MARK:
                taken.append(weight)
            takes = takes[: takes.index(pickletools.markobject)]
        taken += [stack.pop() for _ in takes]
        heavy = 0 if operation.name in UNHASHABLE else sum(taken)
        stack += [1 + heavy] * len(gives)
    return max(stack[-1], 0) if stack else 0


def _name_of_today(named: str) -> str:
    """The name that Python 3 has for what a pickle names as Python 2 did, e.g. "__builtin__ set"."""
    module, _, name = named.partition(" ")
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    return f"{module}.{name}"
