//! The nodes: one file each, listed once in [`registry`].

pub mod picture;
pub mod ports;
pub mod results;

mod canny_detect;
mod clip_set_last_layer;
mod clip_text_encode;
mod clip_text_encode_sdxl;
mod clip_text_encode_sdxl_refiner;
mod clip_vision_encode;
mod conditioning_combine;
mod control_net_apply;
mod crop_mask;
mod edge_detect;
mod embeddings;
mod empty_image;
mod empty_latent_image;
mod feather_mask;
mod grow_mask;
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
mod ip_adapter_combine_embeds;
mod ip_adapter_embeds;
mod ip_adapter_encoder;
mod ip_adapter_load_embeds;
mod ip_adapter_ms;
mod ip_adapter_precise_composition;
mod ip_adapter_precise_style_transfer;
mod ip_adapter_save_embeds;
mod ip_adapter_style_composition;
mod ip_adapter_tiled;
mod ip_adapter_unified_loader;
mod k_sampler;
mod k_sampler_advanced;
mod latent_add;
mod latent_batch;
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
mod mask_composite;
mod mask_to_image;
mod model_file;
mod morphology;
mod names;
mod porter_duff_image_composite;
mod prep_image_for_clip_vision;
mod preview_image;
mod repeat_image_batch;
mod repeat_latent_batch;
mod sampler;
mod save_image;
mod save_latent;
mod set_latent_noise_mask;
mod solid_mask;
mod split_image_with_alpha;
mod tensor_file;
mod threshold_mask;
mod vae_decode;
mod vae_decode_tiled;
mod vae_encode;
mod vae_encode_for_inpaint;
mod vae_encode_tiled;

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
        .add::<canny_detect::CannyDetect>()
        .add::<clip_set_last_layer::CLIPSetLastLayer>()
        .add::<clip_text_encode::CLIPTextEncode>()
        .add::<clip_text_encode_sdxl::CLIPTextEncodeSDXL>()
        .add::<clip_text_encode_sdxl_refiner::CLIPTextEncodeSDXLRefiner>()
        .add::<clip_vision_encode::CLIPVisionEncode>()
        .add::<conditioning_combine::ConditioningCombine>()
        .add::<control_net_apply::ControlNetApply>()
        .add::<crop_mask::CropMask>()
        .add::<edge_detect::EdgeDetect>()
        .add::<empty_image::EmptyImage>()
        .add::<empty_latent_image::EmptyLatentImage>()
        .add::<feather_mask::FeatherMask>()
        .add::<grow_mask::GrowMask>()
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
        .add::<ip_adapter_combine_embeds::IPAdapterCombineEmbeds>()
        .add::<ip_adapter_embeds::IPAdapterEmbeds>()
        .add::<ip_adapter_encoder::IPAdapterEncoder>()
        .add::<ip_adapter_load_embeds::IPAdapterLoadEmbeds>()
        .add::<ip_adapter_ms::IPAdapterMS>()
        .add::<ip_adapter_precise_composition::IPAdapterPreciseComposition>()
        .add::<ip_adapter_precise_style_transfer::IPAdapterPreciseStyleTransfer>()
        .add::<ip_adapter_save_embeds::IPAdapterSaveEmbeds>()
        .add::<ip_adapter_style_composition::IPAdapterStyleComposition>()
        .add::<ip_adapter_tiled::IPAdapterTiled>()
        .add::<ip_adapter_unified_loader::IPAdapterUnifiedLoader>()
        .add::<k_sampler::KSampler>()
        .add::<k_sampler_advanced::KSamplerAdvanced>()
        .add::<latent_add::LatentAdd>()
        .add::<latent_batch::LatentBatch>()
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
        .add::<mask_composite::MaskComposite>()
        .add::<mask_to_image::MaskToImage>()
        .add::<morphology::Morphology>()
        .add::<porter_duff_image_composite::PorterDuffImageComposite>()
        .add::<prep_image_for_clip_vision::PrepImageForClipVision>()
        .add::<preview_image::PreviewImage>()
        .add::<repeat_image_batch::RepeatImageBatch>()
        .add::<repeat_latent_batch::RepeatLatentBatch>()
        .add::<save_image::SaveImage>()
        .add::<save_latent::SaveLatent>()
        .add::<set_latent_noise_mask::SetLatentNoiseMask>()
        .add::<solid_mask::SolidMask>()
        .add::<split_image_with_alpha::SplitImageWithAlpha>()
        .add::<threshold_mask::ThresholdMask>()
        .add::<vae_decode::VAEDecode>()
        .add::<vae_decode_tiled::VAEDecodeTiled>()
        .add::<vae_encode::VAEEncode>()
        .add::<vae_encode_for_inpaint::VAEEncodeForInpaint>()
        .add::<vae_encode_tiled::VAEEncodeTiled>();
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
