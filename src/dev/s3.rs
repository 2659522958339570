pub struct EmbeddedS3;
