"""NATTEN's attention: packed sequences are attended one by one."""

import pytest
import torch
from torch.testing import assert_close

from dinat_ref.interop.natten_attention import attention, generate_varlen_parameters

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def packed(queries: list[int], keys: list[int]) -> tuple[torch.Tensor, ...]:
    """Query, key and value of sequences one behind the other, with grouped heads, and their lengths."""
    tensors = draw(1, sum(queries), 4, 8), draw(1, sum(keys), 2, 8, seed=1), draw(1, sum(keys), 2, 6, seed=2)
    return *tensors, torch.tensor(queries, dtype=torch.int32), torch.tensor(keys, dtype=torch.int32)


@pytest.mark.parametrize("is_causal", [False, True])
def test_a_sequence_attends_itself_alone(is_causal):
    queries = [3, 1, 5]
    keys = queries if is_causal else [4, 2, 3]
    query, key, value, q_lengths, k_lengths = packed(queries, keys)
    output, lse = attention(query, key, value, is_causal, seqlens_Q=q_lengths, seqlens_KV=k_lengths, return_lse=True)
    assert (output.shape, lse.shape) == ((1, 9, 4, 6), (1, 9, 4))
    for q, k, out, own_lse in zip(
        query.split(queries, 1), key.split(keys, 1), output.split(queries, 1), lse.split(queries, 1), strict=True
    ):
        index = [part.shape[1] for part in (q, k)]
        v = value.split(keys, 1)[[part.shape[1] for part in key.split(keys, 1)].index(k.shape[1])]
        heads_first = [tensor.transpose(1, 2) for tensor in (q, k, v)]
        expected = torch.nn.functional.scaled_dot_product_attention(*heads_first, is_causal=is_causal, enable_gqa=True)
        assert_close(out, expected.transpose(1, 2), **CLOSE)
        assert own_lse.shape == (1, index[0], 4)
        assert_close(attention(q, k, v, is_causal, return_lse=True)[1], own_lse, **CLOSE)


def test_lengths_and_their_sums_say_the_same():
    query, key, value, q_lengths, k_lengths = packed([3, 1, 5], [4, 2, 3])
    lengths = attention(query, key, value, scale=0.3, seqlens_Q=q_lengths, seqlens_KV=k_lengths)
    ends = generate_varlen_parameters(query, key, value, q_lengths, k_lengths)
    assert [end.tolist() if isinstance(end, torch.Tensor) else end for end in ends] == [
        [0, 3, 4, 9],
        [0, 4, 6, 9],
        5,
        4,
    ]
    names = ("cumulative_seqlen_Q", "cumulative_seqlen_KV", "max_seqlen_Q", "max_seqlen_KV")
    sums = attention(query, key, value, scale=0.3, **dict(zip(names, ends, strict=True)))
    assert_close(lengths, sums, rtol=0, atol=0)
    assert generate_varlen_parameters(query, key, value) == (None, None, 0, 0)
    plain = attention(query, key, value, max_seqlen_Q=0, max_seqlen_KV=0)
    assert_close(plain, attention(query, key, value), rtol=0, atol=0)


def test_sequences_may_be_empty_and_tokens_left_over():
    query, key, value, *_ = packed([6], [6])
    names = ("cumulative_seqlen_Q", "cumulative_seqlen_KV", "max_seqlen_Q", "max_seqlen_KV")
    ends = (torch.tensor([0, 2, 2, 4]), torch.tensor([0, 0, 3, 6]), 2, 3)
    output, lse = attention(query, key, value, return_lse=True, **dict(zip(names, ends, strict=True)))
    assert not output[:, :2].any(), "no keys"
    assert not output[:, 4:].any(), "behind the last sequence"
    assert lse[:, [0, 1, 4, 5]].isneginf().all()
    assert_close(output[:, 2:4], attention(query[:, 2:4], key[:, 3:], value[:, 3:]), **CLOSE)


def test_gradients_stay_inside_a_sequence():
    query, key, value, q_lengths, k_lengths = packed([3, 4], [3, 4])
    key.requires_grad_()
    output = attention(query, key, value, seqlens_Q=q_lengths, seqlens_KV=k_lengths)
    (gradient,) = torch.autograd.grad(output[:, :3].sum(), key)
    assert gradient[:, :3].any()
    assert not gradient[:, 3:].any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seqlens_Q": torch.tensor([3])}, "need both seqlens_Q and seqlens_KV"),
        ({"seqlens_Q": torch.tensor([3]), "seqlens_KV": torch.tensor([1, 2])}, "list as many sequences, got 1 and 2"),
        (
            {"seqlens_Q": torch.tensor([9]), "seqlens_KV": torch.tensor([3])},
            "cumulative_seqlen_Q must rise .* at most 5",
        ),
        ({"seqlens_Q": torch.tensor([3.0]), "seqlens_KV": torch.tensor([3])}, "seqlens_Q must be integers"),
        (
            {"cumulative_seqlen_Q": torch.tensor([0, 5]), "max_seqlen_Q": 5},
            "need cumulative_seqlen_KV and max_seqlen_KV",
        ),
        (
            {
                "cumulative_seqlen_Q": torch.tensor([0, 5]),
                "cumulative_seqlen_KV": torch.tensor([0, 5]),
                "max_seqlen_Q": 4,
                "max_seqlen_KV": 5,
            },
            "max_seqlen_Q must be at least the longest sequence, 5, got 4",
        ),
        (
            {"seqlens_Q": torch.tensor([2, 3]), "seqlens_KV": torch.tensor([3, 2]), "is_causal": True},
            "as many queries as keys, got 2 and 3",
        ),
    ],
)
def test_lengths_that_do_not_fit_are_refused(arguments, message):
    x = draw(1, 5, 2, 4)
    with pytest.raises(ValueError, match=message):
        attention(x, x, x, **arguments)


def test_packed_sequences_have_a_batch_of_one():
    x, lengths = draw(2, 5, 2, 4), torch.tensor([5])
    with pytest.raises(ValueError, match="batch of 1, got 2"):
        attention(x, x, x, seqlens_Q=lengths, seqlens_KV=lengths)
