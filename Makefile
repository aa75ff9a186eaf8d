# make demo | demo-framewise | demo-something | demo-imagenet | demo-events | demo-event-driven | test | test-fast | test-extensive | lint | clean. Each sets up .venv first, again only when pyproject.toml has changed.
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

DEMO_CFG := configs/Demo/KINETICS_MORPHMLP.yaml
DEMO_OUT := output/demo
DEMO_WEIGHTS := $(DEMO_OUT)/checkpoints/checkpoint_best.pyth

.PHONY: demo demo-framewise demo-something demo-imagenet demo-events demo-event-driven test test-fast test-extensive lint clean setup
.DELETE_ON_ERROR:

demo: $(STAMP)
	$(BIN)/python tools/make_demo_data.py --format kinetics --out demo/kinetics
	$(BIN)/python tools/run_net.py --cfg $(DEMO_CFG) OUTPUT_DIR $(DEMO_OUT)
	@echo; echo "The same test with one frame of each clip repeated."
	$(BIN)/python tools/run_net.py --cfg $(DEMO_CFG) OUTPUT_DIR $(DEMO_OUT)_repeated TRAIN.ENABLE False \
		TEST.FRAME_ORDER repeated TEST.CHECKPOINT_FILE_PATH $(DEMO_WEIGHTS)
	@echo; echo "The same test with the frames of each clip shuffled."
	$(BIN)/python tools/run_net.py --cfg $(DEMO_CFG) OUTPUT_DIR $(DEMO_OUT)_shuffled TRAIN.ENABLE False \
		TEST.FRAME_ORDER shuffled TEST.CHECKPOINT_FILE_PATH $(DEMO_WEIGHTS)
	@echo; echo "Plots:"; ls $(DEMO_OUT)/*.png
	@echo; echo "Report, to open in a browser: $(DEMO_OUT)/report.html"

demo-framewise: $(STAMP)
	$(BIN)/python tools/make_demo_data.py --format kinetics_colors --out demo/kinetics_colors
	$(BIN)/python tools/run_net.py --cfg configs/Demo/KINETICS_CONVMLP_FRAMEWISE.yaml

demo-something: $(STAMP)
	$(BIN)/python tools/make_demo_data.py --format something --out demo/something
	$(BIN)/python tools/run_net.py --cfg configs/Demo/SOMETHING_MORPHMLP.yaml

demo-imagenet: $(STAMP)
	$(BIN)/python tools/make_demo_data.py --format imagenet --out demo/imagenet
	$(BIN)/python tools/run_net.py --cfg configs/Demo/IMAGENET_CONVMLP.yaml

demo-events: $(STAMP)
	$(BIN)/python tools/make_demo_data.py --format events --out demo/events
	for version in "" _V3; do \
		$(BIN)/python tools/run_net.py --cfg configs/Demo/EVENTS_EVENT2VEC$$version.yaml \
			OUTPUT_DIR output/demo_events$$version && \
		echo && echo "The same test with the times of each sample shuffled." && \
		$(BIN)/python tools/run_net.py --cfg configs/Demo/EVENTS_EVENT2VEC$$version.yaml TRAIN.ENABLE False \
			OUTPUT_DIR output/demo_events$${version}_shuffled TEST.FRAME_ORDER shuffled \
			TEST.CHECKPOINT_FILE_PATH output/demo_events$$version/checkpoints/checkpoint_best.pyth || exit; \
	done

demo-event-driven: $(STAMP)
	$(BIN)/python tools/make_demo_data.py --format imagenet --out demo/imagenet
	$(BIN)/python tools/run_net.py --cfg configs/Demo/IMAGENET_EVMLP.yaml
	$(BIN)/python tools/make_demo_data.py --format kinetics_shapes --out demo/kinetics_shapes
	$(BIN)/python tools/run_net.py --cfg configs/Demo/IMAGENET_EVMLP.yaml EVENT.ENABLE True EVENT.STREAMS 4 \
		DATA.PATH_PREFIX demo/kinetics_shapes/videos
	@echo; echo "The same clips as a Kinetics test, frame by frame, event-driven within each clip."
	$(BIN)/python tools/run_net.py --cfg configs/Demo/IMAGENET_EVMLP.yaml TRAIN.ENABLE False EVENT.ENABLE True \
		MODEL.FRAMEWISE logits TEST.DATASET kinetics DATA.PATH_TO_DATA_DIR demo/kinetics_shapes \
		DATA.PATH_PREFIX demo/kinetics_shapes DATA.NUM_FRAMES 32 DATA.SAMPLING_RATE 1 DATA.TRAIN_JITTER_SCALES "[64,64]" \
		TEST.BATCH_SIZE 8 TEST.NUM_SPATIAL_CROPS 3 OUTPUT_DIR output/demo_evmlp_clips \
		TEST.CHECKPOINT_FILE_PATH output/demo_evmlp/checkpoints/checkpoint_best.pyth
	$(BIN)/python tools/calibrate_event_driven.py --cfg configs/Demo/IMAGENET_EVMLP.yaml demo/kinetics_shapes/videos

test: $(STAMP)
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not extensive"

# The rest: several machines, Slurm, Ray, an installed wheel, the notebook, full-size training steps.
test-extensive: $(STAMP)
	$(BIN)/python -m pip install --quiet --editable ".[ray]"
	$(BIN)/python -m pytest -n auto --dist worksteal -m extensive

# For daily work: the quick part of `make test`.
test-fast: $(STAMP)
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow"

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf demo output build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

setup: $(STAMP)

# PyTorch comes first: a plain range would bring its newest build, with gigabytes of CUDA packages.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Python 3.11 or newer is needed; choose one with make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "error: $(PYTHON) has no venv module; install it (Debian, Ubuntu: python3-venv)" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	@$(BIN)/python -c 'import cv2' 2>/dev/null || $(MAKE) --no-print-directory headless-opencv
	@touch $@

# opencv-python needs display libraries (libGL) that servers often lack; its headless twin does not.
.PHONY: headless-opencv
headless-opencv:
	@version=$$($(BIN)/python -c 'from importlib.metadata import version; print(version("opencv-python"))') && \
	echo "opencv-python cannot be imported here; taking opencv-python-headless $$version instead" && \
	$(BIN)/python -m pip uninstall --quiet --yes opencv-python && \
	$(BIN)/python -m pip install --quiet --no-deps --force-reinstall "opencv-python-headless==$$version" && \
	$(BIN)/python -c 'import cv2'
