"""The windows that the page looks up, for every choice of its settings: the page itself knows no window.

All of them are Python's: neighborhoods from ``dinat_ref.window``, Swin's blocks and full attention from the layers of
``dinat_ref.analysis.receptive_field``. A window is its first key and the number of its keys; the settings know how far
apart these are.
"""

import itertools

from dinat_ref.analysis.receptive_field import FullAttention, Layer, WindowedAttention
from dinat_ref.neighborhood import Neighborhood

OPTIONS = {"k": [1, 2, 3, 4, 5, 7, 9, 11], "d": [1, 2, 3, 4, 6, 8], "s": [1, 2, 3, 5, 7]}
MOST_LAYERS = 4


def axis_layers(length: int) -> dict[str, Layer]:
    """Name the layers that fit an axis: neighborhoods by kernel size, dilation, stride and causality; blocks; full.

    Swin shifts the blocks of every other layer by half of their size.

    Example:
        >>> axis_layers(5)["na,3,1,1,0"]
        Neighborhood(layout=(5,), kernel_size=(3,), stride=(1,), dilation=(1,), is_causal=(False,))
        >>> axis_layers(5)["swin,3,1"]
        WindowedAttention(layout=(5,), window_size=3, shift=1)
    """
    layers: dict[str, Layer] = {"full": FullAttention((length,))}
    for k in OPTIONS["k"]:
        layers[f"swin,{k},0"] = WindowedAttention((length,), k)
        layers[f"swin,{k},1"] = WindowedAttention((length,), k, k // 2)
    for k, d, s, causal in itertools.product(OPTIONS["k"], OPTIONS["d"], OPTIONS["s"], (False, True)):
        if k * d <= length and s <= k:
            layers[f"na,{k},{d},{s},{int(causal)}"] = Neighborhood((length,), k, s, d, causal)
    return layers


def axis_tables(length: int) -> dict[str, list[list[int]]]:
    """List the windows of every position of an axis: the first key and the number of keys, by the layer's name.

    Example:
        >>> axis_tables(5)["na,3,1,1,0"]
        [[0, 3], [0, 3], [1, 3], [2, 3], [2, 3]]
        >>> axis_tables(5)["swin,3,1"]
        [[0, 1], [1, 3], [1, 3], [1, 3], [4, 1]]
    """
    return {name: [[min(keys), len(keys)] for keys in layer.windows(0)] for name, layer in axis_layers(length).items()}
