# SPDX-License-Identifier: Apache-2.0
"""Real classes of transformers and diffusers at tiny random configurations, and a scene with known masks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from fmh_ros.core.cues.types import HandObservation
from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.frame.frame import Frame

SKIN, RED, GROUND = (224, 172, 140), (190, 30, 40), (60, 90, 70)


@dataclass(frozen=True)
class Painted:
    """A flat scene: a hand with a forearm, seen from the back, before an upright red box; all masks exact."""

    frame: Frame
    hand: HandObservation
    hand_mask: NDArray[np.bool_]
    object_mask: NDArray[np.bool_]


@lru_cache(maxsize=1)
def painted_scene() -> Painted:
    """A right hand that comes from the lower right and holds a box in the upper left."""
    height, width = 240, 320
    wrist, forward = np.array([200.0, 160.0]), np.array([-0.8, -0.6])
    aside = np.array([-forward[1], forward[0]])
    keypoints = [wrist]
    for finger, spread in enumerate((28.0, 14.0, 4.0, -6.0, -16.0)):
        reach = (16.0, 42.0, 44.0, 42.0, 38.0)[finger]
        keypoints += [wrist + forward * (reach + 9 * k) + aside * spread for k in range(4)]
    points = np.array(keypoints)
    hand = np.zeros((height, width), np.uint8)
    for finger in range(5):
        strip = points[[0, *range(4 * finger + 1, 4 * finger + 5)]]
        cv2.polylines(hand, [np.round(strip).astype(np.int32)], False, 1, 11)
    cv2.line(hand, (200, 160), (330, 258), 1, 26)
    thing = np.zeros_like(hand)
    cv2.rectangle(thing, (95, 50), (150, 135), 1, -1)
    thing &= ~hand & 1
    image = np.full((height, width, 3), GROUND, np.uint8)
    image[thing > 0], image[hand > 0] = RED, SKIN
    K = np.array([[300.0, 0, 151.0], [0, 302.0, 112.0], [0, 0, 1]])
    low, high = points.min(0), points.max(0)
    seen = HandObservation("right", 0.9, 0.9, (*low, *high), points, np.zeros((21, 3)))
    return Painted(Frame(image, CameraModel(width, height, K)), seen, hand > 0, thing > 0)


def seeded(kind: Any, config: Any, seed: int = 0) -> Any:
    """A network with random weights, always the same."""
    torch.manual_seed(seed)
    return kind(config).eval()


@lru_cache(maxsize=1)
def tiny_sam2() -> Any:
    """``Sam2Model`` of a 64-pixel image."""
    from transformers import Sam2Config, Sam2Model, Sam2VisionConfig

    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 8,
        "num_attention_heads": 1,
        "image_size": [64, 64],
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 1, 1, 1],
        "window_size_per_stage": [4, 4, 4, 4],
        "global_attention_blocks": [3],
    }
    vision = Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[64, 32, 16, 8],
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        fpn_hidden_size=16,
    )
    prompts = {"hidden_size": 16, "image_size": 64, "patch_size": 16, "mask_input_channels": 4}
    decoder = {"hidden_size": 16, "mlp_dim": 16, "num_attention_heads": 2, "iou_head_hidden_dim": 16}
    return seeded(
        Sam2Model, Sam2Config(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder)
    )


def _sam3_vision() -> dict[str, Any]:
    backbone = {
        "model_type": "sam3_vit_model",
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 56,
        "patch_size": 14,
        "window_size": 2,
        "global_attn_indexes": [1],
        "pretrain_image_size": 28,
    }
    sizes = [[16, 16], [8, 8], [4, 4]]
    return {
        "model_type": "sam3_vision_model",
        "backbone_config": backbone,
        "fpn_hidden_size": 16,
        "backbone_feature_sizes": sizes,
    }


@lru_cache(maxsize=1)
def tiny_sam3_tracker() -> Any:
    """``Sam3TrackerModel`` of a 56-pixel image."""
    from transformers import Sam3TrackerConfig, Sam3TrackerModel

    prompts = {"hidden_size": 16, "image_size": 56, "patch_size": 14, "mask_input_channels": 4}
    decoder = {"hidden_size": 16, "mlp_dim": 16, "num_attention_heads": 2, "iou_head_hidden_dim": 16}
    return seeded(
        Sam3TrackerModel,
        Sam3TrackerConfig(vision_config=_sam3_vision(), prompt_encoder_config=prompts, mask_decoder_config=decoder),
    )


@lru_cache(maxsize=1)
def tiny_sam3() -> Any:
    """``Sam3Model`` of a 56-pixel image with a CLIP text encoder of 50 words."""
    from transformers import Sam3Config, Sam3Model

    part = {"hidden_size": 16, "num_attention_heads": 2}
    layers = {**part, "num_layers": 1, "intermediate_size": 16}
    text = {
        "model_type": "clip_text_model",
        "vocab_size": 50,
        "hidden_size": 16,
        "intermediate_size": 16,
        "projection_dim": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 32,
    }
    config = Sam3Config(
        vision_config=_sam3_vision(),
        text_config=text,
        geometry_encoder_config=layers,
        detr_encoder_config=layers,
        detr_decoder_config={**layers, "num_queries": 8},
        mask_decoder_config={**part, "num_upsampling_stages": 3},
    )
    return seeded(Sam3Model, config)


def published_video_model(kind: str, folder: Path) -> Path:
    """A folder as facebook/sam2.1-* ("sam2") and facebook/sam3 ("sam3") are published: of the whole video model."""
    import transformers
    from safetensors.torch import save_file

    memory = {
        "memory_attention_hidden_size": 16, "memory_attention_num_layers": 1, "memory_encoder_hidden_size": 16,
        "memory_attention_feed_forward_hidden_size": 16, "memory_encoder_output_channels": 8,
        "mask_downsampler_embed_dim": 16, "memory_fuser_embed_dim": 16, "memory_fuser_intermediate_dim": 16,
        "memory_attention_rope_feat_sizes": [4, 4],
    }  # fmt: skip
    alone = (tiny_sam2() if kind == "sam2" else tiny_sam3_tracker()).config
    parts = {
        name: getattr(alone, name).to_dict()
        for name in ("vision_config", "prompt_encoder_config", "mask_decoder_config")
    }
    config: Any
    if kind == "sam2":
        config = transformers.Sam2VideoConfig(**parts, **memory, image_size=64)
        whole = seeded(transformers.Sam2VideoModel, config)
    else:
        tracker = transformers.Sam3TrackerVideoConfig(**parts, **memory, image_size=56)
        config = transformers.Sam3VideoConfig(
            detector_config=tiny_sam3().config.to_dict(), tracker_config=tracker.to_dict()
        )
        whole = seeded(transformers.Sam3VideoModel, config)
    config.save_pretrained(folder)
    weights = {name: value.clone().contiguous() for name, value in whole.state_dict().items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    tiny_words().save_pretrained(folder)
    return folder


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", ".", "hand", "mug", "red", "box", "object"]


@lru_cache(maxsize=1)
def tiny_words() -> Any:
    """A BERT tokenizer of ten words."""
    from transformers import BertTokenizer

    return BertTokenizer(vocab={word: k for k, word in enumerate(WORDS)})


@lru_cache(maxsize=1)
def tiny_grounding_dino() -> Any:
    """``GroundingDinoForObjectDetection`` with a Swin backbone of three small stages."""
    from transformers import BertConfig, GroundingDinoConfig, GroundingDinoForObjectDetection, SwinConfig

    backbone = SwinConfig(
        image_size=64, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4, out_indices=[2, 3, 4]
    )
    text = BertConfig(vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                      intermediate_size=16)  # fmt: skip
    layers = {
        "d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "num_queries": 10,
        "disable_custom_kernels": True,
    }  # fmt: skip
    config = GroundingDinoConfig(backbone_config=backbone, text_config=text, **layers)
    return seeded(GroundingDinoForObjectDetection, config)


QWEN_MARKS = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|image_pad|>", "<|vision_end|>"]


@lru_cache(maxsize=1)
def tiny_qwen_words() -> Any:
    """A tokenizer of single words with the chat marks of Qwen."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["[unk]", *QWEN_MARKS, "red", "mug", "blue", "box", "nothing", "Which", "object", "user", "assistant"]
    inner = Tokenizer(models.WordLevel({word: k for k, word in enumerate(words)}, unk_token="[unk]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        unk_token="[unk]",
        eos_token="<|im_end|>",
        pad_token="[unk]",
        additional_special_tokens=QWEN_MARKS,
    )


@lru_cache(maxsize=2)
def tiny_qwen(generation: str = "2.5") -> Any:
    """``Qwen2_5_VLForConditionalGeneration`` or ``Qwen3VLForConditionalGeneration``."""
    import transformers

    marks = {name: tiny_qwen_words().convert_tokens_to_ids(f"<|{mark}|>") for name, mark in (
        ("image_token_id", "image_pad"), ("vision_start_token_id", "vision_start"),
        ("vision_end_token_id", "vision_end"))}  # fmt: skip
    text = {
        "vocab_size": len(tiny_qwen_words()), "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 512, "bos_token_id": 1,
        "eos_token_id": 2, "pad_token_id": 2,
    }  # fmt: skip
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}
    if generation == "2.5":
        config = transformers.Qwen2_5_VLConfig(
            text_config={**text, "rope_parameters": {**rope, "type": "mrope"}},
            vision_config={**vision, "fullatt_block_indexes": [0]}, **marks,
        )  # fmt: skip
        return seeded(transformers.Qwen2_5_VLForConditionalGeneration, config)
    config = transformers.Qwen3VLConfig(
        text_config={**text, "head_dim": 8, "rope_parameters": {**rope, "mrope_interleaved": True}},
        vision_config={**vision, "patch_size": 14, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]},
        **marks,
    )
    return seeded(transformers.Qwen3VLForConditionalGeneration, config)


def tiny_qwen_images() -> Any:
    """Qwen's image processor for pictures of at most 56 x 56 pixels."""
    from transformers.models.qwen2_vl import image_processing_pil_qwen2_vl as own

    return own.Qwen2VLImageProcessorPil(size={"shortest_edge": 28 * 28, "longest_edge": 56 * 56})


def _dinov2(size: int) -> dict[str, Any]:
    return {
        "model_type": "dinov2", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2,
        "image_size": size, "patch_size": 4, "out_features": ["stage1", "stage2"], "reshape_hidden_states": False,
        "apply_layernorm": False,
    }  # fmt: skip


@lru_cache(maxsize=2)
def tiny_depth_anything(kind: str = "metric") -> Any:
    """``DepthAnythingForDepthEstimation`` on patches of 4 pixels."""
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation

    config = DepthAnythingConfig(
        backbone_config=_dinov2(32), patch_size=4, reassemble_hidden_size=16, reassemble_factors=[2, 1],
        neck_hidden_sizes=[8, 8], fusion_hidden_size=8, head_hidden_size=8, depth_estimation_type=kind, max_depth=20,
    )  # fmt: skip
    return seeded(DepthAnythingForDepthEstimation, config)


@lru_cache(maxsize=1)
def tiny_depth_pro() -> Any:
    """``DepthProForDepthEstimation`` of 64-pixel pictures in patches of 16."""
    from transformers import DepthProConfig, DepthProForDepthEstimation

    part = {"model_type": "dinov2", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
            "mlp_ratio": 2, "image_size": 16, "patch_size": 4}  # fmt: skip
    config = DepthProConfig(
        patch_size=16, fusion_hidden_size=8, intermediate_hook_ids=[1, 0], intermediate_feature_dims=[8, 8],
        scaled_images_ratios=[0.5, 1.0], scaled_images_overlap_ratios=[0.0, 0.2], scaled_images_feature_dims=[8, 8],
        image_model_config=part, patch_model_config=part, fov_model_config=part, use_fov_model=True,
        num_fov_head_layers=0,
    )  # fmt: skip
    return seeded(DepthProForDepthEstimation, config)


@lru_cache(maxsize=3)
def tiny_vitpose(count: int) -> Any:
    """``VitPoseForPoseEstimation`` of so many keypoints; two experts, as ViTPose+ has, for whole bodies."""
    from transformers import VitPoseBackboneConfig, VitPoseConfig, VitPoseForPoseEstimation

    backbone = VitPoseBackboneConfig(
        image_size=[256, 192], patch_size=[16, 16], hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        mlp_ratio=2, num_experts=2 if count == 133 else 1, part_features=4, out_indices=[1],
    )  # fmt: skip
    return seeded(VitPoseForPoseEstimation, VitPoseConfig(backbone_config=backbone, num_labels=count))


def tiny_vitpose_images() -> Any:
    """ViTPose's own image processor."""
    from transformers.models.vitpose import image_processing_pil_vitpose as own

    return own.VitPoseImageProcessorPil()


@lru_cache(maxsize=1)
def tiny_sentences() -> Any:
    """A tokenizer of words with padding and a chat template, for the text encoders of editors."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["[pad]", "[unk]", "remove", "Remove", "the", "hand", "Keep", "red", "box", "ball", "exactly", "arm"]
    inner = Tokenizer(models.WordLevel({word: k for k, word in enumerate(words)}, unk_token="[unk]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="[unk]", pad_token="[pad]", eos_token="[pad]", model_max_length=77
    )
    made.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    return made


def tiny_kontext() -> Any:
    """``FluxKontextPipeline`` of real FLUX, VAE, CLIP and T5 classes; random, but always the same."""
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxKontextPipeline, FluxTransformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=16, pooled_projection_dim=16, guidance_embeds=True, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(4,), latent_channels=1, norm_num_groups=1, use_quant_conv=False, use_post_quant_conv=False,
        shift_factor=0.0609, scaling_factor=1.5035,
    )  # fmt: skip
    words = len(tiny_sentences())
    clip = CLIPTextConfig(vocab_size=words, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                          num_attention_heads=2, max_position_embeddings=77, projection_dim=16, bos_token_id=0,
                          eos_token_id=0, pad_token_id=0)  # fmt: skip
    t5 = T5Config(vocab_size=words, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    return FluxKontextPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(), vae=vae.eval(), text_encoder=CLIPTextModel(clip).eval(),
        tokenizer=tiny_sentences(), text_encoder_2=T5EncoderModel(t5).eval(), tokenizer_2=tiny_sentences(),
        transformer=transformer.eval(),
    )  # fmt: skip


def tiny_klein() -> Any:
    """``Flux2KleinPipeline`` of real FLUX.2, VAE and Qwen3 classes."""
    from diffusers import (
        AutoencoderKLFlux2,
        FlowMatchEulerDiscreteScheduler,
        Flux2KleinPipeline,
        Flux2Transformer2DModel,
    )
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    transformer = Flux2Transformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=16, timestep_guidance_channels=32, axes_dims_rope=(4, 4, 4, 4), guidance_embeds=False,
    )  # fmt: skip
    vae = AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(4, 4), layers_per_block=1, latent_channels=4, norm_num_groups=1, use_quant_conv=False,
        use_post_quant_conv=False, sample_size=32,
    )  # fmt: skip
    qwen = Qwen3Config(vocab_size=len(tiny_sentences()), hidden_size=16, intermediate_size=16, num_hidden_layers=2,
                       num_attention_heads=2, num_key_value_heads=2, head_dim=8)  # fmt: skip
    return Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(), vae=vae.eval(), text_encoder=Qwen3ForCausalLM(qwen).eval(),
        tokenizer=tiny_sentences(), transformer=transformer.eval(), is_distilled=True,
    )  # fmt: skip


def tiny_qwen_edit(plus: bool = True) -> Any:
    """``QwenImageEditPlusPipeline`` or ``QwenImageEditPipeline`` of real classes."""
    import diffusers

    from fmh_ros.core.cues.foundation.qwen_inputs import QwenInputs

    torch.manual_seed(0)
    vae = diffusers.AutoencoderKLQwenImage(
        base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True],
        latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
    )  # fmt: skip
    transformer = diffusers.QwenImageTransformer2DModel(
        patch_size=2, in_channels=16, out_channels=4, num_layers=1, attention_head_dim=16, num_attention_heads=1,
        joint_attention_dim=16, guidance_embeds=False, axes_dims_rope=(8, 4, 4),
    )  # fmt: skip
    kind = diffusers.QwenImageEditPlusPipeline if plus else diffusers.QwenImageEditPipeline
    return kind(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(), vae=vae.eval(), text_encoder=tiny_qwen(),
        tokenizer=tiny_qwen_words(), processor=QwenInputs(tiny_qwen_images(), tiny_qwen_words()),
        transformer=transformer.eval(),
    )  # fmt: skip


def save(network: Any, folder: Path) -> Path:
    """Write a network in the publisher's layout: config.json and safetensors."""
    network.save_pretrained(folder)
    return folder
