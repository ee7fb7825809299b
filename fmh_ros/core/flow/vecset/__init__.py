# SPDX-License-Identifier: Apache-2.0
"""What generators over vector sets share: an implicit field that is decoded point by point from a set of tokens."""
