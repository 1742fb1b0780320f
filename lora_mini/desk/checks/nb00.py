"""Checks for notebook 00: a patch of rank 1, and what a patch costs."""

import numpy as np

from lora_mini.desk.checks import answer, close


def check_patch_numbers(numbers):
    """The numbers in a patch of rank 16 for a 1024 x 4096 matrix."""
    answer(numbers, lambda n: n == 16 * (1024 + 4096), [
        (lambda n: n == 1024 * 4096, "that is the whole matrix"),
        (lambda n: n == 1024 + 4096, "that is one column and one row; rank 16 has sixteen of each"),
        (lambda n: n in (16 * 1024, 16 * 4096),
         "a rank costs a column and a row: you counted one of the two"),
        (lambda n: n == 2 * 16 * (1024 + 4096), "that is twice too many: each of the two thin matrices "
                                                "was counted twice"),
        (lambda n: n in (16 * 1024 * 4096, 16 * 1024 * 16 * 4096),
         "the numbers of B and of A add up; they don't multiply"),
        (lambda n: n > 1024 * 4096, "a patch of rank 16 holds fewer numbers than the matrix"),
    ])


def check_stripes(stripes):
    """`stripes` must be a (300, 256) patch of rank 1: every second block of 8 columns 40 brighter."""
    row = np.where(np.arange(256) // 8 % 2 == 1, 40.0, 0.0)
    right = np.outer(np.ones(300), row)
    answer(stripes, lambda P: close(P, right), [
        (lambda P: np.shape(P) == (256, 300), "expected 300 rows and 256 columns: in np.outer the "
                                              "column comes first"),
        (lambda P: np.shape(P) == (256, 256), "the column must have 300 entries, one for each row"),
        (lambda P: np.shape(P) == (256,), "that is the row; lay it over all 300 rows with np.outer"),
        (lambda P: close(P, 40 - right), "the stripes are there, but the others: the first 8 columns "
                                         "should stay as they are"),
        (lambda P: close(P, 40 * right), "40 was multiplied in twice: the row holds it already"),
        (lambda P: np.shape(P) == (300, 256) and not np.ptp(P, axis=1).any(),
         "these stripes lie across: a column of ones times the row gives upright ones"),
        (lambda P: np.shape(P) == (300, 256) and np.abs(P).max() > 100,
         "the patch alone, please, without the photograph"),
        (lambda P: close(np.asarray(P) * 40, right), "right pattern; how bright should it be?"),
        (lambda P: np.linalg.matrix_rank(P) > 1, "that has a rank above 1: one column times one row "
                                                 "is enough"),
    ])
