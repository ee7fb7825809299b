# SPDX-License-Identifier: Apache-2.0
"""Scenes with exact truth, made by a seeded generator, and what is measured on them."""
