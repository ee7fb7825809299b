# SPDX-License-Identifier: Apache-2.0
"""The reconstruction core: numpy and torch, no ROS.

Data flows frame, cues, registration, flow, guidance, reconstruction, export.
"""
