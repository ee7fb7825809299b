# SPDX-License-Identifier: Apache-2.0
"""Recordings: rosbag2 bags read, written and reconstructed from, with and without ROS."""
