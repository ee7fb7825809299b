# SPDX-License-Identifier: Apache-2.0
"""Metrics against ground truth."""
