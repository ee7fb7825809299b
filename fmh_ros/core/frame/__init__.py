# SPDX-License-Identifier: Apache-2.0
"""What enters: one image with its camera and, when there is one, its aligned depth."""
