variable "name" {
  description = "Name of the key group, the cache policy and the origin access control; unique in the account."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9_-]{0,47}$", var.name))
    error_message = "Use 1 to 48 letters, digits, hyphens and underscores, as in \"paperminder-ota\"."
  }
}

variable "bucket_regional_domain_name" {
  description = "Host of the bucket in its region; the output of the same name of module storage."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9.-]+\\.s3[.-][a-z0-9.-]+$", var.bucket_regional_domain_name))
    error_message = "Give the host of the bucket in its region, as in \"acme-firmware.s3.eu-central-1.amazonaws.com\"."
  }
}

variable "public_keys" {
  description = "Public keys as PEM, ECDSA P-256, by a name of your choosing: the one that signs, and at least one that stands ready. CloudFront trusts all of them. The private keys never come near Terraform."
  type        = map(string)
  nullable    = false

  validation {
    condition     = length(var.public_keys) >= 2 && length(var.public_keys) <= 5
    error_message = "Give 2 to 5 keys: the one that signs and the next one, so that a key that leaked is replaced by one changed setting. CloudFront takes 5 in a group."
  }

  validation {
    condition     = alltrue([for name in keys(var.public_keys) : can(regex("^[A-Za-z0-9_-]{1,32}$", name))])
    error_message = "A key's name has 1 to 32 letters, digits, hyphens and underscores, as in \"2026-11\"."
  }

  validation {
    condition     = alltrue([for pem in values(var.public_keys) : !strcontains(pem, "PRIVATE KEY")])
    error_message = "This is a private key. Take it out of here and out of Terraform's logs and state, make another one, and give its public key: `openssl ec -in private-key.pem -pubout`."
  }

  # What every P-256 public key begins with, in base64: a shorter signature than RSA's, so that URLs stay below 512 characters.
  validation {
    condition     = alltrue([for pem in values(var.public_keys) : can(regex("^-----BEGIN PUBLIC KEY-----\\s+MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE[A-Za-z0-9+/=\\s]+-----END PUBLIC KEY-----$", trimspace(pem)))])
    error_message = "Give ECDSA P-256 public keys as PEM: `openssl ecparam -name prime256v1 -genkey -noout -out private-key.pem` makes a private key, `openssl ec -in private-key.pem -pubout` prints its public key."
  }

  validation {
    condition     = length(distinct([for pem in values(var.public_keys) : trimspace(pem)])) == length(var.public_keys)
    error_message = "Two names stand for the same key; the one that stands ready must be another one."
  }
}

variable "signing_key" {
  description = "Name of the key in public_keys whose private key the server has (CDN_KEY_PAIR_ID)."
  type        = string

  validation {
    condition     = contains(keys(var.public_keys), var.signing_key)
    error_message = "signing_key must be one of the names in public_keys."
  }
}

variable "aliases" {
  description = "Host names of your own, the first of which is put into URLs; CloudFront's own name when empty. They need a certificate, and DNS records that point to the output `domain_name`."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for alias in var.aliases : can(regex("^([a-z0-9]([a-z0-9-]*[a-z0-9])?\\.)+[a-z]{2,}$", alias))])
    error_message = "Aliases are plain host names without a scheme, as in \"firmware.example.com\"."
  }
}

variable "certificate_arn" {
  description = "ACM certificate for the aliases, in us-east-1, where CloudFront looks for it."
  type        = string
  default     = null

  validation {
    condition     = var.certificate_arn == null || can(regex("^arn:aws[a-z-]*:acm:us-east-1:[0-9]{12}:certificate/", var.certificate_arn))
    error_message = "CloudFront takes ACM certificates of us-east-1 only, as in \"arn:aws:acm:us-east-1:111122223333:certificate/…\"."
  }

  validation {
    condition     = (var.certificate_arn == null) == (length(var.aliases) == 0)
    error_message = "Aliases and certificate go together: give both or none."
  }
}

variable "minimum_protocol_version" {
  description = "Oldest TLS that viewers may speak, with a certificate of your own. An ESP8266 speaks TLS 1.2 and no more."
  type        = string
  default     = "TLSv1.2_2021"
  nullable    = false

  validation {
    condition     = contains(["TLSv1.2_2018", "TLSv1.2_2019", "TLSv1.2_2021"], var.minimum_protocol_version)
    error_message = "Choose TLSv1.2_2018, TLSv1.2_2019 or TLSv1.2_2021: policies with TLS 1.3 only lock every ESP8266 out, and older ones let TLS 1.1 in."
  }
}

variable "viewer_protocol_policy" {
  description = "`https-only`, or `allow-all` for printers without memory for TLS: then URLs are http:// ones, which whoever is on the way can read, and answer with another image unless the printer checks the MD5 of the offer."
  type        = string
  default     = "https-only"
  nullable    = false

  validation {
    condition     = contains(["https-only", "allow-all"], var.viewer_protocol_policy)
    error_message = "Choose https-only or allow-all. redirect-to-https is no choice: printers follow no redirect."
  }
}

variable "price_class" {
  description = "Which of CloudFront's locations answer: PriceClass_100 (North America, Europe), PriceClass_200 or PriceClass_All."
  type        = string
  default     = "PriceClass_100"
  nullable    = false

  validation {
    condition     = contains(["PriceClass_100", "PriceClass_200", "PriceClass_All"], var.price_class)
    error_message = "Choose PriceClass_100, PriceClass_200 or PriceClass_All."
  }
}

variable "log_bucket_domain_name" {
  description = "Host of a bucket for access logs, whose ACLs let CloudFront write; no logs when null. Logs hold signed URLs, which are good until they expire."
  type        = string
  default     = null

  validation {
    condition     = var.log_bucket_domain_name == null || can(regex("\\.s3[.-].*amazonaws\\.com(\\.cn)?$", var.log_bucket_domain_name))
    error_message = "Give the host of a bucket, as in \"acme-logs.s3.amazonaws.com\"."
  }
}

variable "web_acl_arn" {
  description = "AWS WAF web ACL (scope CLOUDFRONT) in front of the distribution; none when null."
  type        = string
  default     = null
}

variable "tags" {
  description = "Tags of everything that can have some."
  type        = map(string)
  default     = {}
  nullable    = false
}
