# SPDX-License-Identifier: Apache-2.0
"""Steering the flow while it samples: losses, phases, schedules."""
