# SPDX-License-Identifier: Apache-2.0
"""Weights of published models: what there is and on what terms, and where they lie on this machine. No torch."""
