# SPDX-License-Identifier: Apache-2.0
"""The result: final meshes, contacts, quality, and the Reconstructor that runs the stages."""
