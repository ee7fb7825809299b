# SPDX-License-Identifier: Apache-2.0
"""Follow My Hold for ROS 2: a hand and the object it holds, reconstructed from one image."""

__version__ = "0.1.0"
