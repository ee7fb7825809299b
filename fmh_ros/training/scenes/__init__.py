# SPDX-License-Identifier: Apache-2.0
"""Synthetic hand-object scenes with exact truth: objects, grasps, rendering, looks and backgrounds."""
