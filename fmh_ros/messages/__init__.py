# SPDX-License-Identifier: Apache-2.0
"""Reconstructions as ROS messages and back: pure functions, without a node and without torch."""
