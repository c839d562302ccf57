//! derive(Inputs): a node is a struct whose fields are its inputs.
