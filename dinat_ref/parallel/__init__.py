"""Neighborhood attention over several processes: planned in integers, exact for every window.

| file      | what                                                                                     |
|-----------|------------------------------------------------------------------------------------------|
| plan      | which keys travel when an axis is split over ranks; no torch                             |
| picture   | a plan drawn and counted as text                                                         |
| header    | the ranks compare notes, so that a disagreement is an error on every rank                |
| exchange  | messages between ranks, and their way back as gradients                                  |
| checked   | the whole problem, checked without its numbers; by halo or by heads, and why             |
| attend    | what a rank does: the interior while halos are under way, then what needs them           |
| sharded   | the front door, ``neighborhood_attention_sharded``                                       |
"""
