# SPDX-License-Identifier: Apache-2.0
"""TripoSG (arXiv 2502.06608), an image-conditioned rectified flow whose weights may be used in products (MIT).

Written on the blocks of diffusers and transformers from the paper and the published checkpoint: its configuration, the
names and shapes of its weights, and the order in which the publisher's classes apply them, so that a checkpoint gives
the same numbers. None of the publisher's code is in here or needed: parts of it come under licences that are not MIT.
"""
