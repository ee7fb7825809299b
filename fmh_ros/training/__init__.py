# SPDX-License-Identifier: Apache-2.0
"""How the embedded models were trained: seeded data and training programs."""
