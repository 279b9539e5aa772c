"""Right kernels to be damaged: three styles, each complete in its own file, for the mutator.

They share no line with the formulations of this package nor with each other, so that a mutant of one is a bug that a
stranger could have written. ``slots`` visits one key after the other with a running maximum, as fused kernels do;
``table`` lists the keys of every query and gathers them; ``blocks`` goes tile by tile under a mask, with a backward
pass written by hand.
"""
