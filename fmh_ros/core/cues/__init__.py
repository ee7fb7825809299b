# SPDX-License-Identifier: Apache-2.0
"""What a frame shows: hand landmarks, masks, depth and normals, the view of the object with the hand removed."""
