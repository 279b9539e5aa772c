"""Neighborhood attention over several processes: planned in integers, exact for every window.

| file      | what                                                                                     |
|-----------|------------------------------------------------------------------------------------------|
| plan      | which keys travel when an axis is split over ranks; no torch                             |
| picture   | a plan drawn and counted as text                                                         |
| header    | the ranks compare notes, so that a disagreement is an error on every rank                |
| exchange  | messages between ranks, and their way back as gradients                                  |
| held      | the tokens at hand: a rank's own between those that others have sent                     |
| checked   | the whole problem, checked without its numbers; by halo or by heads, and why             |
| attend    | what a rank does: the interior while halos are under way, then what needs them           |
| sharded   | the front door, ``neighborhood_attention_sharded``                                       |
| halo      | convolutions and poolings over split rows                                                |
| walk      | the way through a NAT or DiNAT, step by step                                             |
| model     | ``shard_model``: NAT and DiNAT on images whose rows are split, training included         |
| rowfile   | a map in a .npy file, of which a few rows at a time are in memory                        |
| bands     | a run of steps over maps in files, and how far it has come                               |
| stream    | ``stream``: a layer or a backbone on such a map, one band after the other                |
| demo      | a photo denoised across processes                                                        |
| benchmark | the ways against each other on two processes                                             |

Nothing is imported here, for the plan needs no torch.
"""
