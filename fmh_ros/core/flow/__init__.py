# SPDX-License-Identifier: Apache-2.0
"""Rectified flow: the LatentShapeModel protocol, the sampler and the embedded model."""
