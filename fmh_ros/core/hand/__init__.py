# SPDX-License-Identifier: Apache-2.0
"""The hand: a skinned rig, its fit to the cues, its implicit field."""
