# SPDX-License-Identifier: Apache-2.0
"""Everything in one camera frame: similarity registration and placement of the canonical object cube."""
