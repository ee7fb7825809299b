# SPDX-License-Identifier: Apache-2.0
"""TripoSG (arXiv 2502.06608), an image-conditioned rectified flow whose weights may be used in products (MIT).

Written from the paper and from the published checkpoint's configuration, on the blocks of diffusers and transformers.
None of the publisher's code is used: parts of it come under other licences.
"""
