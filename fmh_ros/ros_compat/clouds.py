# SPDX-License-Identifier: Apache-2.0
"""Point clouds: sensor_msgs_py where it is installed, else NumPy."""

from __future__ import annotations

import sys
from array import array
from types import ModuleType

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

try:
    from sensor_msgs_py import point_cloud2 as _point_cloud2
except ImportError:
    _point_cloud2 = None

#: The distribution's sensor_msgs_py.point_cloud2, None where there is none.
POINT_CLOUD2: ModuleType | None = _point_cloud2


def make_cloud(
    header: Header, names: tuple[str, ...], values: NDArray[np.float32], *, use_ros: bool = True
) -> PointCloud2:
    """Return a cloud of one row: ``values`` (N, F) float32, one column for each of the F field names."""
    fields = [
        PointField(name=name, offset=4 * place, datatype=PointField.FLOAT32, count=1)
        for place, name in enumerate(names)
    ]
    values = np.ascontiguousarray(values, np.float32).reshape(-1, len(names))
    if use_ros and POINT_CLOUD2 is not None:
        return POINT_CLOUD2.create_cloud(header, fields, values)
    data = array("B")
    data.frombytes(values.tobytes())
    step = 4 * len(names)
    return PointCloud2(
        header=header,
        height=1,
        width=len(values),
        fields=fields,
        is_bigendian=sys.byteorder == "big",
        point_step=step,
        row_step=step * len(values),
        data=data,
        is_dense=bool(np.isfinite(values).all()),
    )
