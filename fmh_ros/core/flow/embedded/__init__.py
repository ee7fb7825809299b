# SPDX-License-Identifier: Apache-2.0
"""The small flow generator that ships with the package."""
