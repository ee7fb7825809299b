# SPDX-License-Identifier: Apache-2.0
"""A seeded generator of hand-holdable shapes as signed distance functions, and of single views of them."""
