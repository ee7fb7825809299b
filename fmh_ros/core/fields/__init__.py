# SPDX-License-Identifier: Apache-2.0
"""Implicit fields and their differentiable rendering to depth, normals and silhouettes."""
