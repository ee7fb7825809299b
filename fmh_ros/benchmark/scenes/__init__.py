# SPDX-License-Identifier: Apache-2.0
"""The generator of benchmark scenes: objects, plan, grasps, room and camera."""
