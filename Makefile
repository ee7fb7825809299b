# SPDX-License-Identifier: Apache-2.0
# Variables: PYTHON, TORCH_SPEC, TORCH_INDEX (see tools/setup_env.sh), OUT (where the demo writes).
OUT ?= out/demo
EXAMPLE := fmh_ros/assets/example
BIN := .venv/bin

export PYTHON TORCH_SPEC TORCH_INDEX

.PHONY: help demo test lint types unit setup setup-dev train-embedded checksums clean

help:
	@echo "make demo            set up .venv, reconstruct the bundled example, say where to look"
	@echo "make test            set up what it needs, then ruff, mypy and pytest"
	@echo "make train-embedded  train the shipped weights again, several hours"
	@echo "make checksums       after new weights: rewrite fmh_ros/assets/SHA256SUMS"
	@echo "make clean           remove .venv, caches and results"

demo: setup
	@$(BIN)/fmh reconstruct $(EXAMPLE)/rgb.png --depth $(EXAMPLE)/depth.png --camera $(EXAMPLE)/camera.yaml \
		--out $(OUT) --progress
	@echo
	@echo "Look at $(OUT)/views.png and $(OUT)/overlay.png. Your own photo: $(BIN)/fmh reconstruct photo.jpg --out out/mine"

test: lint types unit

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup-dev
	$(BIN)/mypy

unit: setup-dev
	$(BIN)/python -m pytest

setup:
	@tools/setup_env.sh

setup-dev:
	@tools/setup_env.sh dev

train-embedded: setup-dev
	$(BIN)/python -m fmh_ros.training.embedded

checksums: setup-dev
	$(BIN)/python tools/write_checksums.py

clean:
	rm -rf .venv build dist out .pytest_cache .mypy_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
