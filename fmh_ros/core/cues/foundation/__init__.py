# SPDX-License-Identifier: Apache-2.0
"""Cues from published foundation models: masks, names, hands, point maps, and the object with the hand painted out.

Every module here wraps classes of ``transformers``, ``diffusers`` or of a package that the user installs; they are
imported when a model is loaded and not before. Each has ``make_<name>(models, options, device)``: models maps ids of
the catalogue to local folders, options are the profile's, device is "cpu", "cuda" or "cuda:1".
"""
