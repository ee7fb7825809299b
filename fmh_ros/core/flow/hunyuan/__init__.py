# SPDX-License-Identifier: Apache-2.0
"""Hunyuan3D-2 as the shape generator, through the publisher's own classes.

Their licence (code and weights) is not open and excludes some territories, so they are only ever an extra: nothing here
is imported by the default profile, and nothing of theirs before ``load``.
"""
