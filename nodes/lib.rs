//! The nodes: one file each, listed once in [`registry`].

pub mod picture;
pub mod ports;
pub mod results;

mod align_your_steps_scheduler;
mod basic_guider;
mod basic_scheduler;
mod beta_sampling_scheduler;
mod canny_detect;
mod cfg_guider;
mod checkpoint_loader;
mod checkpoint_save;
mod clip_loader;
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
mod diffusers_loader;
mod disable_noise;
mod dual_cfg_guider;
mod dual_clip_loader;
mod embeddings;
mod empty_latent_image;
mod exponential_scheduler;
mod flip_sigmas;
mod image_batch;
mod image_invert;
mod image_resize;
mod image_scale;
mod image_size;
mod inpaint_model_conditioning;
mod instruct_pix_to_pix_conditioning;
mod ip_adapter_apply;
mod k_sampler;
mod k_sampler_advanced;
mod k_sampler_select;
mod karras_scheduler;
mod laplace_scheduler;
mod latent_upscale;
mod load_checkpoint;
mod load_clip_vision;
mod load_control_net;
mod load_image;
mod load_image_mask;
mod load_ip_adapter;
mod load_latent;
mod load_vae;
mod lora_loader;
mod lora_loader_model_only;
mod mask_to_image;
mod model_file;
mod model_merge_add;
mod model_merge_simple;
mod model_merge_subtract;
mod model_sampling_continuous_edm;
mod model_sampling_discrete;
mod names;
mod perp_neg;
mod perp_neg_guider;
mod perturbed_attention_guidance;
mod polyexponential_scheduler;
mod preview_image;
mod random_noise;
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
mod sigmas;
mod split_sigmas;
mod split_sigmas_denoise;
mod unet_loader;
mod vae_decode;
mod vae_decode_tiled;
mod vae_encode;
mod vae_encode_for_inpaint;
mod vae_encode_tiled;
mod vp_scheduler;

use std::path::Path;

use flow_graph::{NodeError, Registry, Value};

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
        .add::<cfg_guider::CFGGuider>()
        .add::<checkpoint_loader::CheckpointLoader>()
        .add::<checkpoint_save::CheckpointSave>()
        .add::<clip_loader::CLIPLoader>()
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
        .add::<diffusers_loader::DiffusersLoader>()
        .add::<disable_noise::DisableNoise>()
        .add::<dual_cfg_guider::DualCFGGuider>()
        .add::<dual_clip_loader::DualCLIPLoader>()
        .add::<empty_latent_image::EmptyLatentImage>()
        .add::<exponential_scheduler::ExponentialScheduler>()
        .add::<flip_sigmas::FlipSigmas>()
        .add::<image_batch::ImageBatch>()
        .add::<image_invert::ImageInvert>()
        .add::<image_resize::ImageResize>()
        .add::<image_scale::ImageScale>()
        .add::<image_size::ImageSize>()
        .add::<inpaint_model_conditioning::InpaintModelConditioning>()
        .add::<instruct_pix_to_pix_conditioning::InstructPixToPixConditioning>()
        .add::<ip_adapter_apply::IPAdapterApply>()
        .add::<k_sampler::KSampler>()
        .add::<k_sampler_advanced::KSamplerAdvanced>()
        .add::<k_sampler_select::KSamplerSelect>()
        .add::<karras_scheduler::KarrasScheduler>()
        .add::<laplace_scheduler::LaplaceScheduler>()
        .add::<latent_upscale::LatentUpscale>()
        .add::<load_checkpoint::LoadCheckpoint>()
        .add::<load_clip_vision::LoadCLIPVision>()
        .add::<load_control_net::LoadControlNet>()
        .add::<load_image::LoadImage>()
        .add::<load_image_mask::LoadImageMask>()
        .add::<load_ip_adapter::LoadIPAdapter>()
        .add::<load_latent::LoadLatent>()
        .add::<load_vae::LoadVAE>()
        .add::<lora_loader::LoraLoader>()
        .add::<lora_loader_model_only::LoraLoaderModelOnly>()
        .add::<mask_to_image::MaskToImage>()
        .add::<model_merge_add::ModelMergeAdd>()
        .add::<model_merge_simple::ModelMergeSimple>()
        .add::<model_merge_subtract::ModelMergeSubtract>()
        .add::<model_sampling_continuous_edm::ModelSamplingContinuousEDM>()
        .add::<model_sampling_discrete::ModelSamplingDiscrete>()
        .add::<perp_neg::PerpNeg>()
        .add::<perp_neg_guider::PerpNegGuider>()
        .add::<perturbed_attention_guidance::PerturbedAttentionGuidance>()
        .add::<polyexponential_scheduler::PolyexponentialScheduler>()
        .add::<preview_image::PreviewImage>()
        .add::<random_noise::RandomNoise>()
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
        .add::<split_sigmas::SplitSigmas>()
        .add::<split_sigmas_denoise::SplitSigmasDenoise>()
        .add::<unet_loader::UNETLoader>()
        .add::<vae_decode::VAEDecode>()
        .add::<vae_decode_tiled::VAEDecodeTiled>()
        .add::<vae_encode::VAEEncode>()
        .add::<vae_encode_for_inpaint::VAEEncodeForInpaint>()
        .add::<vae_encode_tiled::VAEEncodeTiled>()
        .add::<vp_scheduler::VPScheduler>();
    registry
}

/// Writes the first picture of an IMAGE or MASK to `path` as PNG; other values have no picture: `Ok(false)`.
///
/// # Errors
/// When the file cannot be written.
pub fn save_preview(value: &Value, path: &Path) -> Result<bool, NodeError> {
    let bytes = if let Some(image) = value.get::<Image>() {
        png(&image, 0, &[])?
    } else if let Some(mask) = value.get::<Mask>() {
        png_grey(mask.height, mask.width, mask.frame(0))?
    } else {
        return Ok(false);
    };
    write_atomic(path, &bytes, Existing::Replace)?;
    Ok(true)
}
