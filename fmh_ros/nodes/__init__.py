# SPDX-License-Identifier: Apache-2.0
"""ROS 2 nodes. They talk to an engine and import no torch."""
