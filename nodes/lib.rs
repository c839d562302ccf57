//! The nodes: one file each, listed once in [`registry`].

pub mod picture;
pub mod ports;
pub mod results;

mod align_your_steps_scheduler;
mod basic_guider;
mod basic_scheduler;
mod beta_sampling_scheduler;
mod canny_detect;
mod canny_edge_preprocessor;
mod cfg_guider;
mod checkpoint_loader;
mod checkpoint_save;
mod clip_attention_multiply;
mod clip_loader;
mod clip_merge_add;
mod clip_merge_simple;
mod clip_merge_subtract;
mod clip_save;
mod clip_set_last_layer;
mod clip_text_encode;
mod clip_text_encode_sdxl;
mod clip_text_encode_sdxl_refiner;
mod clip_vision_encode;
mod conditioning_average;
mod conditioning_combine;
mod conditioning_concat;
mod conditioning_set_area;
mod conditioning_set_area_percentage;
mod conditioning_set_area_strength;
mod conditioning_set_mask;
mod conditioning_set_timestep_range;
mod conditioning_zero_out;
mod control_net_apply;
mod crop_mask;
mod depth_detect;
mod diff_control_net_loader;
mod differential_diffusion;
mod diffusers_loader;
mod disable_noise;
mod dual_cfg_guider;
mod dual_clip_loader;
mod edge_detect;
mod embeddings;
mod empty_image;
mod empty_latent_image;
mod exponential_scheduler;
mod extent;
mod feather_mask;
mod flip_sigmas;
mod free_u;
mod free_u_v2;
mod grow_mask;
mod hyper_tile;
mod image_add_noise;
mod image_batch;
mod image_blend;
mod image_blur;
mod image_color_to_mask;
mod image_composite_masked;
mod image_crop;
mod image_from_batch;
mod image_invert;
mod image_pad_for_outpaint;
mod image_prompt;
mod image_resize;
mod image_scale;
mod image_scale_by;
mod image_scale_to_total_pixels;
mod image_sharpen;
mod image_size;
mod image_to_mask;
mod image_upscale_with_model;
mod inpaint_model_conditioning;
mod instruct_pix_to_pix_conditioning;
mod invert_mask;
mod ip_adapter;
mod ip_adapter_apply;
mod ip_adapter_batch;
mod ip_adapter_clip_vision_enhancer;
mod ip_adapter_combine_embeds;
mod ip_adapter_combine_params;
mod ip_adapter_embeds;
mod ip_adapter_encoder;
mod ip_adapter_from_params;
mod ip_adapter_load_embeds;
mod ip_adapter_ms;
mod ip_adapter_noise;
mod ip_adapter_precise_composition;
mod ip_adapter_precise_style_transfer;
mod ip_adapter_regional_conditioning;
mod ip_adapter_save_embeds;
mod ip_adapter_style_composition;
mod ip_adapter_tiled;
mod ip_adapter_unified_loader;
mod k_sampler;
mod k_sampler_advanced;
mod k_sampler_select;
mod karras_scheduler;
mod laplace_scheduler;
mod latent_add;
mod latent_batch;
mod latent_batch_seed_behavior;
mod latent_blend;
mod latent_composite;
mod latent_composite_masked;
mod latent_crop;
mod latent_flip;
mod latent_from_batch;
mod latent_interpolate;
mod latent_multiply;
mod latent_rotate;
mod latent_subtract;
mod latent_upscale;
mod latent_upscale_by;
mod latents;
mod load_checkpoint;
mod load_clip_vision;
mod load_control_net;
mod load_image;
mod load_image_mask;
mod load_ip_adapter;
mod load_latent;
mod load_upscale_model;
mod load_vae;
mod lora_loader;
mod lora_loader_model_only;
mod lora_save;
mod mask_composite;
mod mask_to_image;
mod model_file;
mod model_merge_add;
mod model_merge_blocks;
mod model_merge_sdxl;
mod model_merge_simple;
mod model_merge_subtract;
mod model_sampling_continuous_edm;
mod model_sampling_discrete;
mod morphology;
mod names;
mod patch_model_add_downscale;
mod perp_neg;
mod perp_neg_guider;
mod perturbed_attention_guidance;
mod polyexponential_scheduler;
mod porter_duff_image_composite;
mod prep_image_for_clip_vision;
mod preview_image;
mod previewer;
mod random_noise;
mod repeat_image_batch;
mod repeat_latent_batch;
mod rescale_cfg;
mod sampler;
mod sampler_custom;
mod sampler_custom_advanced;
mod sampler_dpm_adaptative;
mod sampler_dpmpp_2m_sde;
mod sampler_dpmpp_2s_ancestral;
mod sampler_dpmpp_3m_sde;
mod sampler_dpmpp_sde;
mod sampler_euler_ancestral;
mod sampler_euler_ancestral_cfg_pp;
mod sampler_lms;
mod save_image;
mod save_latent;
mod sd_turbo_scheduler;
mod self_attention_guidance;
mod set_first_sigma;
mod set_latent_noise_mask;
mod set_union_control_net_type;
mod sigmas;
mod solid_mask;
mod split_image_with_alpha;
mod split_sigmas;
mod split_sigmas_denoise;
mod threshold_mask;
mod tome_patch_model;
mod unet_cross_attention_multiply;
mod unet_loader;
mod unet_self_attention_multiply;
mod vae_decode;
mod vae_decode_tiled;
mod vae_encode;
mod vae_encode_for_inpaint;
mod vae_encode_tiled;
mod vae_save;
mod vp_scheduler;

use std::path::Path;

use flow_graph::{NodeError, Registry, Value, context::Provenance};

use crate::{
    picture::encode::{Existing, png, png_grey, write_atomic},
    ports::{Image, Mask},
};

/// All nodes.
pub fn registry() -> Registry {
    let mut registry = Registry::new();
    registry
        .add::<align_your_steps_scheduler::AlignYourStepsScheduler>()
        .add::<basic_guider::BasicGuider>()
        .add::<basic_scheduler::BasicScheduler>()
        .add::<beta_sampling_scheduler::BetaSamplingScheduler>()
        .add::<canny_detect::CannyDetect>()
        .add::<canny_edge_preprocessor::CannyEdgePreprocessor>()
        .add::<cfg_guider::CFGGuider>()
        .add::<checkpoint_loader::CheckpointLoader>()
        .add::<checkpoint_save::CheckpointSave>()
        .add::<clip_attention_multiply::CLIPAttentionMultiply>()
        .add::<clip_loader::CLIPLoader>()
        .add::<clip_merge_add::CLIPMergeAdd>()
        .add::<clip_merge_simple::CLIPMergeSimple>()
        .add::<clip_merge_subtract::CLIPMergeSubtract>()
        .add::<clip_save::CLIPSave>()
        .add::<clip_set_last_layer::CLIPSetLastLayer>()
        .add::<clip_text_encode::CLIPTextEncode>()
        .add::<clip_text_encode_sdxl::CLIPTextEncodeSDXL>()
        .add::<clip_text_encode_sdxl_refiner::CLIPTextEncodeSDXLRefiner>()
        .add::<clip_vision_encode::CLIPVisionEncode>()
        .add::<conditioning_average::ConditioningAverage>()
        .add::<conditioning_combine::ConditioningCombine>()
        .add::<conditioning_concat::ConditioningConcat>()
        .add::<conditioning_set_area::ConditioningSetArea>()
        .add::<conditioning_set_area_percentage::ConditioningSetAreaPercentage>()
        .add::<conditioning_set_area_strength::ConditioningSetAreaStrength>()
        .add::<conditioning_set_mask::ConditioningSetMask>()
        .add::<conditioning_set_timestep_range::ConditioningSetTimestepRange>()
        .add::<conditioning_zero_out::ConditioningZeroOut>()
        .add::<control_net_apply::ControlNetApply>()
        .add::<crop_mask::CropMask>()
        .add::<depth_detect::DepthDetect>()
        .add::<diff_control_net_loader::DiffControlNetLoader>()
        .add::<differential_diffusion::DifferentialDiffusion>()
        .add::<diffusers_loader::DiffusersLoader>()
        .add::<disable_noise::DisableNoise>()
        .add::<dual_cfg_guider::DualCFGGuider>()
        .add::<dual_clip_loader::DualCLIPLoader>()
        .add::<edge_detect::EdgeDetect>()
        .add::<empty_image::EmptyImage>()
        .add::<empty_latent_image::EmptyLatentImage>()
        .add::<exponential_scheduler::ExponentialScheduler>()
        .add::<feather_mask::FeatherMask>()
        .add::<flip_sigmas::FlipSigmas>()
        .add::<free_u::FreeU>()
        .add::<free_u_v2::FreeU_V2>()
        .add::<grow_mask::GrowMask>()
        .add::<hyper_tile::HyperTile>()
        .add::<image_add_noise::ImageAddNoise>()
        .add::<image_batch::ImageBatch>()
        .add::<image_blend::ImageBlend>()
        .add::<image_blur::ImageBlur>()
        .add::<image_color_to_mask::ImageColorToMask>()
        .add::<image_composite_masked::ImageCompositeMasked>()
        .add::<image_crop::ImageCrop>()
        .add::<image_from_batch::ImageFromBatch>()
        .add::<image_invert::ImageInvert>()
        .add::<image_pad_for_outpaint::ImagePadForOutpaint>()
        .add::<image_resize::ImageResize>()
        .add::<image_scale::ImageScale>()
        .add::<image_scale_by::ImageScaleBy>()
        .add::<image_scale_to_total_pixels::ImageScaleToTotalPixels>()
        .add::<image_sharpen::ImageSharpen>()
        .add::<image_size::ImageSize>()
        .add::<image_to_mask::ImageToMask>()
        .add::<image_upscale_with_model::ImageUpscaleWithModel>()
        .add::<inpaint_model_conditioning::InpaintModelConditioning>()
        .add::<instruct_pix_to_pix_conditioning::InstructPixToPixConditioning>()
        .add::<invert_mask::InvertMask>()
        .add::<ip_adapter::IPAdapter>()
        .add::<ip_adapter_apply::IPAdapterApply>()
        .add::<ip_adapter_batch::IPAdapterBatch>()
        .add::<ip_adapter_clip_vision_enhancer::IPAdapterClipVisionEnhancer>()
        .add::<ip_adapter_combine_embeds::IPAdapterCombineEmbeds>()
        .add::<ip_adapter_combine_params::IPAdapterCombineParams>()
        .add::<ip_adapter_embeds::IPAdapterEmbeds>()
        .add::<ip_adapter_encoder::IPAdapterEncoder>()
        .add::<ip_adapter_from_params::IPAdapterFromParams>()
        .add::<ip_adapter_load_embeds::IPAdapterLoadEmbeds>()
        .add::<ip_adapter_ms::IPAdapterMS>()
        .add::<ip_adapter_noise::IPAdapterNoise>()
        .add::<ip_adapter_precise_composition::IPAdapterPreciseComposition>()
        .add::<ip_adapter_precise_style_transfer::IPAdapterPreciseStyleTransfer>()
        .add::<ip_adapter_regional_conditioning::IPAdapterRegionalConditioning>()
        .add::<ip_adapter_save_embeds::IPAdapterSaveEmbeds>()
        .add::<ip_adapter_style_composition::IPAdapterStyleComposition>()
        .add::<ip_adapter_tiled::IPAdapterTiled>()
        .add::<ip_adapter_unified_loader::IPAdapterUnifiedLoader>()
        .add::<k_sampler::KSampler>()
        .add::<k_sampler_advanced::KSamplerAdvanced>()
        .add::<k_sampler_select::KSamplerSelect>()
        .add::<karras_scheduler::KarrasScheduler>()
        .add::<laplace_scheduler::LaplaceScheduler>()
        .add::<latent_add::LatentAdd>()
        .add::<latent_batch::LatentBatch>()
        .add::<latent_batch_seed_behavior::LatentBatchSeedBehavior>()
        .add::<latent_blend::LatentBlend>()
        .add::<latent_composite::LatentComposite>()
        .add::<latent_composite_masked::LatentCompositeMasked>()
        .add::<latent_crop::LatentCrop>()
        .add::<latent_flip::LatentFlip>()
        .add::<latent_from_batch::LatentFromBatch>()
        .add::<latent_interpolate::LatentInterpolate>()
        .add::<latent_multiply::LatentMultiply>()
        .add::<latent_rotate::LatentRotate>()
        .add::<latent_subtract::LatentSubtract>()
        .add::<latent_upscale::LatentUpscale>()
        .add::<latent_upscale_by::LatentUpscaleBy>()
        .add::<load_checkpoint::LoadCheckpoint>()
        .add::<load_clip_vision::LoadCLIPVision>()
        .add::<load_control_net::LoadControlNet>()
        .add::<load_image::LoadImage>()
        .add::<load_image_mask::LoadImageMask>()
        .add::<load_ip_adapter::LoadIPAdapter>()
        .add::<load_latent::LoadLatent>()
        .add::<load_upscale_model::LoadUpscaleModel>()
        .add::<load_vae::LoadVAE>()
        .add::<lora_loader::LoraLoader>()
        .add::<lora_loader_model_only::LoraLoaderModelOnly>()
        .add::<lora_save::LoraSave>()
        .add::<mask_composite::MaskComposite>()
        .add::<mask_to_image::MaskToImage>()
        .add::<model_merge_add::ModelMergeAdd>()
        .add::<model_merge_blocks::ModelMergeBlocks>()
        .add::<model_merge_sdxl::ModelMergeSDXL>()
        .add::<model_merge_simple::ModelMergeSimple>()
        .add::<model_merge_subtract::ModelMergeSubtract>()
        .add::<model_sampling_continuous_edm::ModelSamplingContinuousEDM>()
        .add::<model_sampling_discrete::ModelSamplingDiscrete>()
        .add::<morphology::Morphology>()
        .add::<patch_model_add_downscale::PatchModelAddDownscale>()
        .add::<perp_neg::PerpNeg>()
        .add::<perp_neg_guider::PerpNegGuider>()
        .add::<perturbed_attention_guidance::PerturbedAttentionGuidance>()
        .add::<polyexponential_scheduler::PolyexponentialScheduler>()
        .add::<porter_duff_image_composite::PorterDuffImageComposite>()
        .add::<prep_image_for_clip_vision::PrepImageForClipVision>()
        .add::<preview_image::PreviewImage>()
        .add::<random_noise::RandomNoise>()
        .add::<repeat_image_batch::RepeatImageBatch>()
        .add::<repeat_latent_batch::RepeatLatentBatch>()
        .add::<rescale_cfg::RescaleCFG>()
        .add::<sampler_custom::SamplerCustom>()
        .add::<sampler_custom_advanced::SamplerCustomAdvanced>()
        .add::<sampler_dpm_adaptative::SamplerDPMAdaptative>()
        .add::<sampler_dpmpp_2m_sde::SamplerDPMPP_2M_SDE>()
        .add::<sampler_dpmpp_2s_ancestral::SamplerDPMPP_2S_Ancestral>()
        .add::<sampler_dpmpp_3m_sde::SamplerDPMPP_3M_SDE>()
        .add::<sampler_dpmpp_sde::SamplerDPMPP_SDE>()
        .add::<sampler_euler_ancestral::SamplerEulerAncestral>()
        .add::<sampler_euler_ancestral_cfg_pp::SamplerEulerAncestralCFGPP>()
        .add::<sampler_lms::SamplerLMS>()
        .add::<save_image::SaveImage>()
        .add::<save_latent::SaveLatent>()
        .add::<sd_turbo_scheduler::SDTurboScheduler>()
        .add::<self_attention_guidance::SelfAttentionGuidance>()
        .add::<set_first_sigma::SetFirstSigma>()
        .add::<set_latent_noise_mask::SetLatentNoiseMask>()
        .add::<set_union_control_net_type::SetUnionControlNetType>()
        .add::<solid_mask::SolidMask>()
        .add::<split_image_with_alpha::SplitImageWithAlpha>()
        .add::<split_sigmas::SplitSigmas>()
        .add::<split_sigmas_denoise::SplitSigmasDenoise>()
        .add::<threshold_mask::ThresholdMask>()
        .add::<tome_patch_model::TomePatchModel>()
        .add::<unet_cross_attention_multiply::UNetCrossAttentionMultiply>()
        .add::<unet_loader::UNETLoader>()
        .add::<unet_self_attention_multiply::UNetSelfAttentionMultiply>()
        .add::<vae_decode::VAEDecode>()
        .add::<vae_decode_tiled::VAEDecodeTiled>()
        .add::<vae_encode::VAEEncode>()
        .add::<vae_encode_for_inpaint::VAEEncodeForInpaint>()
        .add::<vae_encode_tiled::VAEEncodeTiled>()
        .add::<vae_save::VAESave>()
        .add::<vp_scheduler::VPScheduler>();
    registry
}

/// Pictures in an IMAGE or MASK; other values have none.
pub fn pictures(value: &Value) -> usize {
    let image = value.get::<Image>().map(|image| image.frames);
    image.or_else(|| Some(value.get::<Mask>()?.frames)).unwrap_or(0)
}

/// Writes one of the [`pictures`] of a value to `path` as PNG, with what it was made from.
///
/// # Errors
/// When there is no such picture, or the file cannot be written.
pub fn save_picture(value: &Value, frame: usize, path: &Path, recipe: &Provenance) -> Result<(), NodeError> {
    let chunks = results::chunks(recipe);
    let bytes = match (value.get::<Image>(), value.get::<Mask>()) {
        _ if frame >= pictures(value) => return Err(NodeError::new("there is no such picture")),
        (Some(image), _) => png(&image, frame, &chunks)?,
        (None, Some(mask)) => png_grey(mask.height, mask.width, mask.frame(frame), &chunks)?,
        (None, None) => return Err(NodeError::new("there is no picture")),
    };
    Ok(write_atomic(path, &bytes, Existing::Replace)?)
}
