# SPDX-License-Identifier: Apache-2.0
"""Engines run reconstructions as jobs, away from whoever asks for them; no ROS, and no torch on the asking side."""
