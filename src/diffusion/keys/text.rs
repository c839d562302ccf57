use super::Place;
use crate::header::Header;

/// How a file names a CLIP text tower. Inside, names are transformers': `text_model.encoder.layers.0.mlp.fc1.weight`,
/// `text_projection.weight`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextKeys {
    prefix: &'static str,
    naming: TextNaming,
}

/// Who named a text tower's weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextNaming {
    /// transformers: `text_model.encoder.layers.0.self_attn.q_proj.weight`.
    Transformers,
    /// transformers before the end of 2022: the same without `text_model.`.
    Bare,
    /// OpenCLIP: `transformer.resblocks.0.attn.in_proj_weight`, queries, keys and values in one.
    OpenClip,
}

impl TextKeys {
    /// The names of the tower below `prefix`; nothing if the file has none there.
    pub fn find(header: &Header, prefix: &'static str, naming: TextNaming) -> Option<Self> {
        let keys = Self { prefix, naming };
        header.shape(&keys.place("text_model.embeddings.token_embedding.weight").name)?;
        Some(keys)
    }

    /// What all the tower's names in the file start with; may be empty.
    pub fn prefix(&self) -> &'static str {
        self.prefix
    }

    /// Who named the weights.
    pub fn naming(&self) -> TextNaming {
        self.naming
    }

    /// Where the file has the tensor that is called `name` inside.
    pub fn place(&self, name: &str) -> Place {
        let place = match self.naming {
            TextNaming::Transformers => Place::from(name.to_owned()),
            TextNaming::Bare => Place::from(bare(name).to_owned()),
            TextNaming::OpenClip => open_clip(bare(name)),
        };
        Place { name: format!("{}{}", self.prefix, place.name), ..place }
    }
}

fn bare(name: &str) -> &str {
    name.strip_prefix("text_model.").unwrap_or(name)
}

fn open_clip(name: &str) -> Place {
    // OpenCLIP multiplies by its projection, transformers has a linear layer.
    if name == "text_projection.weight" {
        return Place { transposed: true, ..Place::from("text_projection".to_owned()) };
    }
    if let Some(block) = name.strip_prefix("encoder.layers.") {
        return open_clip_block(block);
    }
    let other = match name {
        "embeddings.position_embedding.weight" => "positional_embedding",
        "embeddings.token_embedding.weight" => "token_embedding.weight",
        "final_layer_norm.weight" => "ln_final.weight",
        "final_layer_norm.bias" => "ln_final.bias",
        other => other,
    };
    Place::from(other.to_owned())
}

/// `name` is what follows `encoder.layers.`: `0.mlp.fc1.weight`.
fn open_clip_block(name: &str) -> Place {
    let (block, rest) = name.split_once('.').unwrap_or((name, ""));
    let (module, kind) = rest.rsplit_once('.').unwrap_or((rest, ""));
    let place = |module: &str| Place::from(format!("transformer.resblocks.{block}.{module}"));
    let fused = |part| Place { part: Some((part, 3)), ..place(&format!("attn.in_proj_{kind}")) };
    match module {
        "self_attn.q_proj" => fused(0),
        "self_attn.k_proj" => fused(1),
        "self_attn.v_proj" => fused(2),
        "self_attn.out_proj" => place(&format!("attn.out_proj.{kind}")),
        "layer_norm1" => place(&format!("ln_1.{kind}")),
        "layer_norm2" => place(&format!("ln_2.{kind}")),
        "mlp.fc1" => place(&format!("mlp.c_fc.{kind}")),
        "mlp.fc2" => place(&format!("mlp.c_proj.{kind}")),
        _ => place(rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    /// Every row of a section of a key list: what the file has (`name`, `name[0:1280]`, where it is cut), the name
    /// inside (`name T` where it is transposed).
    fn agree(list: &str, section: &str, keys: &TextKeys) -> usize {
        let text = std::fs::read_to_string(fixture::path(list)).unwrap();
        let from = text.find(&format!("# {section}\n")).unwrap();
        let rows = text[from..].lines().skip(1).take_while(|line| !line.starts_with('#'));
        let check = |row: &str| {
            let mut columns = row.split('\t');
            let (file, inside) = (columns.next().unwrap(), columns.next().unwrap());
            let (inside, transposed) = inside.strip_suffix(" T").map_or((inside, false), |name| (name, true));
            let place = keys.place(inside);
            let (name, part) = match file.split_once('[') {
                None => (file, None),
                Some((name, cut)) => {
                    let (start, end) = cut.strip_suffix(']').unwrap().split_once(':').unwrap();
                    let (start, end): (usize, usize) = (start.parse().unwrap(), end.parse().unwrap());
                    (name, Some((start / (end - start), 3)))
                }
            };
            assert_eq!(place, Place { name: name.to_owned(), part, transposed }, "{row}");
        };
        rows.inspect(|row| check(row)).count()
    }

    #[test]
    fn every_tensor_of_the_published_towers_has_its_place() {
        let transformers = |prefix| TextKeys { prefix, naming: TextNaming::Transformers };
        let open_clip = |prefix| TextKeys { prefix, naming: TextNaming::OpenClip };
        let sd1 = transformers("cond_stage_model.transformer.");
        assert_eq!(agree("keys/sd15.tsv", "text_encoder", &sd1), 197);
        let l = transformers("conditioner.embedders.0.transformer.");
        assert_eq!(agree("sdxl/keys.tsv", "text_encoder", &l), 197);
        let g = open_clip("conditioner.embedders.1.model.");
        assert_eq!(agree("sdxl/keys.tsv", "text_encoder_2", &g), 517);
    }

    #[test]
    fn old_files_lack_the_first_word() {
        let keys = TextKeys { prefix: "cond_stage_model.transformer.", naming: TextNaming::Bare };
        let name = keys.place("text_model.final_layer_norm.bias").name;
        assert_eq!(name, "cond_stage_model.transformer.final_layer_norm.bias");
    }
}
