# SPDX-License-Identifier: Apache-2.0
"""A reconstruction written to disk: meshes, JSON and pictures."""
