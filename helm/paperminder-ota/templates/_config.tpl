{{- /* The server's settings, as YAML. Nothing secret stands here: secrets are files. */ -}}
{{- define "paperminder-ota.config" -}}
{{- $config := dict
  "BASE_URL" (include "paperminder-ota.baseUrl" .)
  "DATABASE_URL" (include "paperminder-ota.databaseUrl" (dict "root" . "user" .Values.database.user))
  "DATABASE_PASSWORD_FILE" "/etc/paperminder/database/password"
  "DATABASE_MAX_CONNECTIONS" .Values.database.poolSize
  "DRAIN_SECONDS" .Values.shutdown.drainSeconds
  "INTERNAL_ADDR" (printf "%s:9000" .Values.listenAddress)
  "LISTEN_ADDR" (printf "%s:8000" .Values.listenAddress)
  "LOG_FORMAT" "json"
  "MAX_CONNECTIONS" .Values.maxPrinters
  "DELIVERY" .Values.delivery.mode
}}
{{- with .Values.s3 }}
{{- $_ := set $config "S3_BUCKET" .bucket }}
{{- if .region }}{{ $_ := set $config "AWS_REGION" .region }}{{ end }}
{{- if .endpoint }}{{ $_ := set $config "AWS_ENDPOINT_URL_S3" .endpoint }}{{ end }}
{{- if .publicEndpoint }}{{ $_ := set $config "S3_PUBLIC_ENDPOINT" .publicEndpoint }}{{ end }}
{{- if not (kindIs "invalid" .pathStyle) }}{{ $_ := set $config "S3_PATH_STYLE" .pathStyle }}{{ end }}
{{- end }}
{{- with .Values.delivery.cdn }}
{{- if .baseUrl }}{{ $_ := set $config "CDN_BASE_URL" .baseUrl }}{{ end }}
{{- if .keyPairId }}
{{- $_ := set $config "CDN_KEY_PAIR_ID" .keyPairId }}
{{- $_ := set $config "CDN_PRIVATE_KEY_FILE" "/etc/paperminder/cdn/private-key.pem" }}
{{- end }}
{{- end }}
{{- with .Values.oidc }}
{{- if .issuer }}{{ $_ := set $config "OIDC_ISSUER" .issuer }}{{ end }}
{{- if .clientId }}{{ $_ := set $config "OIDC_CLIENT_ID" .clientId }}{{ end }}
{{- if .existingSecret }}{{ $_ := set $config "OIDC_CLIENT_SECRET_FILE" "/etc/paperminder/oidc/client-secret" }}{{ end }}
{{- if .roles }}
{{- $roles := list }}
{{- range $value, $role := .roles }}{{ $roles = append $roles (printf "%s=%s" $value $role) }}{{ end }}
{{- $_ := set $config "OIDC_ROLES" (join "," $roles) }}
{{- end }}
{{- end }}
{{- if .Values.auth.existingSecret }}{{ $_ := set $config "BOOTSTRAP_ADMIN_KEY_FILE" "/etc/paperminder/admin/key" }}{{ end }}
{{- with .Values.trustedProxies }}{{ $_ := set $config "TRUSTED_PROXIES" (join "," .) }}{{ end }}
{{- if ne (toString .Values.garbageCollection.mode) "server" }}{{ $_ := set $config "GC_EVERY_SECONDS" 0 }}{{ end }}
{{- if .Values.tracing.endpoint }}
{{- $_ := set $config "OTEL_EXPORTER_OTLP_ENDPOINT" .Values.tracing.endpoint }}
{{- $_ := set $config "OTEL_SERVICE_NAME" "paperminder-ota" }}
{{- end }}
{{- range $name, $value := .Values.settings }}
{{- $_ := set $config $name $value }}
{{- end }}
{{- range $name, $value := $config }}
{{ $name }}: {{ include "paperminder-ota.text" $value | quote }}
{{- end }}
{{- end }}

{{- /* Numbers of a values file arrive as floats: 2097152 must not become 2.097152e+06. */ -}}
{{- define "paperminder-ota.text" -}}
{{- if kindIs "float64" . }}{{ if eq (floor .) . }}{{ int64 . }}{{ else }}{{ . }}{{ end }}{{ else }}{{ . }}{{ end }}
{{- end }}

{{- /* Settings that a value of the chart sets, and which. */ -}}
{{- define "paperminder-ota.taken" -}}
BASE_URL: baseUrl
DATABASE_URL: database.host, database.name, database.user and database.existingSecret
DATABASE_URL_FILE: database.host, database.name, database.user and database.existingSecret
DATABASE_PASSWORD_FILE: database.existingSecret
DATABASE_MAX_CONNECTIONS: database.poolSize
DRAIN_SECONDS: shutdown.drainSeconds
MAX_CONNECTIONS: maxPrinters
S3_BUCKET: s3.bucket
S3_PUBLIC_ENDPOINT: s3.publicEndpoint
S3_PATH_STYLE: s3.pathStyle
AWS_ENDPOINT_URL_S3: s3.endpoint
AWS_REGION: s3.region
AWS_ACCESS_KEY_ID: s3.existingSecret
AWS_SECRET_ACCESS_KEY: s3.existingSecret
AWS_SESSION_TOKEN: serviceAccount.annotations, or pod identity
DELIVERY: delivery.mode
CDN_BASE_URL: delivery.cdn.baseUrl
CDN_KEY_PAIR_ID: delivery.cdn.keyPairId
CDN_PRIVATE_KEY_FILE: delivery.cdn.existingSecret
OIDC_ISSUER: oidc.issuer
OIDC_CLIENT_ID: oidc.clientId
OIDC_CLIENT_SECRET_FILE: oidc.existingSecret
OIDC_ROLES: oidc.roles
BOOTSTRAP_ADMIN_KEY_FILE: auth.existingSecret
TRUSTED_PROXIES: trustedProxies
GC_EVERY_SECONDS: garbageCollection.mode
LISTEN_ADDR: listenAddress and service.port
INTERNAL_ADDR: listenAddress and internalService.port
OTEL_EXPORTER_OTLP_ENDPOINT: tracing.endpoint
{{- end }}
