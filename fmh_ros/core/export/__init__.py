# SPDX-License-Identifier: Apache-2.0
"""What leaves: meshes, the JSON document and the pictures of a result (``write.write_result``)."""
