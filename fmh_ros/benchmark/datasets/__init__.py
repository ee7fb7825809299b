# SPDX-License-Identifier: Apache-2.0
"""Photographs with annotated hands and objects, read from the user's own copies of OakInk, ARCTIC and DexYCB.

Nothing of these data sets, of their tools or of MANO is part of this package (docs/datasets.md: what to get where, and
on what terms). Each module turns one official layout into `BenchmarkScene`, so that runs, metrics and tables are the
same as for rendered scenes.
"""
