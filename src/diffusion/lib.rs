//! Stable Diffusion on candle: models, weights, samplers. Knows no graph.
