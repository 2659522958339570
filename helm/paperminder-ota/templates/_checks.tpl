{{- /* What values cannot be, in sentences with a remedy; all at once, so that nobody mends one after the other. */ -}}
{{- define "paperminder-ota.checks" -}}
{{- $wrong := list }}
{{- with .Values.database }}
{{- if not .host }}
{{- $wrong = append $wrong "database.host is missing: the PostgreSQL server, as in --set database.host=db.example.com" }}
{{- end }}
{{- if not .existingSecret }}
{{- $wrong = append $wrong (printf "database.existingSecret is missing: a Secret with the database role's password. Make one with `read -rs P; printf %%s \"$P\" | kubectl create secret generic ota-database --from-file=%s=/dev/stdin`, then --set database.existingSecret=ota-database" .passwordKey) }}
{{- end }}
{{- if and .caSecret (has .sslMode (list "disable" "prefer" "require")) }}
{{- $wrong = append $wrong (printf "database.caSecret changes nothing while database.sslMode is %s: set --set database.sslMode=verify-full" .sslMode) }}
{{- end }}
{{- end }}
{{- if not .Values.s3.bucket }}
{{- $wrong = append $wrong "s3.bucket is missing: the bucket of the images, as in --set s3.bucket=acme-firmware" }}
{{- end }}
{{- $need := include "paperminder-ota.databaseConnections" . | int64 }}
{{- $have := int64 .Values.database.maxConnections }}
{{- if and $have (gt $need $have) }}
{{- $wrong = append $wrong (printf "database.maxConnections is %d, but %s replicas, one more during an upgrade, with %v connections and one to listen each, and two for jobs, may ask for %d: lower database.poolSize or the replicas, or let the database take more, as in --set database.poolSize=%d" $have (include "paperminder-ota.maxReplicas" .) (int64 .Values.database.poolSize) $need (max 2 (sub (div (sub $have 2) (add (include "paperminder-ota.maxReplicas" . | int64) 1)) 1))) }}
{{- end }}
{{- if and .Values.autoscaling.enabled (lt (int64 .Values.autoscaling.maxReplicas) (int64 .Values.autoscaling.minReplicas)) }}
{{- $wrong = append $wrong (printf "autoscaling.maxReplicas (%v) is below autoscaling.minReplicas (%v): raise it, as in --set autoscaling.maxReplicas=%v" .Values.autoscaling.maxReplicas .Values.autoscaling.minReplicas .Values.autoscaling.minReplicas) }}
{{- end }}
{{- if and .Values.autoscaling.enabled (not .Values.autoscaling.printersPerReplica) (not .Values.autoscaling.cpuUtilization) }}
{{- $wrong = append $wrong "autoscaling has nothing to go by: set --set autoscaling.cpuUtilization=70 or autoscaling.printersPerReplica=10000" }}
{{- end }}
{{- if and .Values.autoscaling.enabled (gt (int64 .Values.autoscaling.printersPerReplica) (int64 .Values.maxPrinters)) }}
{{- $wrong = append $wrong (printf "autoscaling.printersPerReplica (%v) is more than a replica takes (maxPrinters: %v), so nothing would ever be added: set --set autoscaling.printersPerReplica=10000" (int64 .Values.autoscaling.printersPerReplica) (int64 .Values.maxPrinters)) }}
{{- end }}
{{- if and (eq .Values.migrations.mode "startup") (ne (include "paperminder-ota.migrationsUser" .) .Values.database.user) }}
{{- $wrong = append $wrong "migrations.mode=startup migrates as database.user, so migrations.user has no meaning: leave it empty, or set --set migrations.mode=hook" }}
{{- end }}
{{- if and .Values.migrations.user (ne .Values.migrations.user .Values.database.user) (not .Values.migrations.existingSecret) }}
{{- $wrong = append $wrong (printf "migrations.existingSecret is missing: the password of migrations.user (%s), as in --set migrations.existingSecret=ota-database-owner" .Values.migrations.user) }}
{{- end }}
{{- with .Values.delivery }}
{{- if and (eq .mode "cdn") (not .cdn.baseUrl) }}
{{- $wrong = append $wrong "delivery.cdn.baseUrl is missing: delivery.mode is cdn, which needs --set delivery.cdn.baseUrl=https://firmware.example.com" }}
{{- end }}
{{- if and .cdn.keyPairId (not .cdn.existingSecret) }}
{{- $wrong = append $wrong (printf "delivery.cdn.existingSecret is missing: the private key of delivery.cdn.keyPairId. Make it with `kubectl create secret generic ota-cdn --from-file=%s`, then --set delivery.cdn.existingSecret=ota-cdn" .cdn.privateKeyKey) }}
{{- end }}
{{- if and .cdn.existingSecret (not .cdn.keyPairId) }}
{{- $wrong = append $wrong "delivery.cdn.keyPairId is missing: delivery.cdn.existingSecret holds a key, and CloudFront must be told which, as in --set delivery.cdn.keyPairId=K2JCJMDEHXQW5F" }}
{{- end }}
{{- end }}
{{- if and .Values.oidc.issuer (not .Values.oidc.roles) }}
{{- $wrong = append $wrong "oidc.roles is missing: nobody of the issuer would get in. Say what groups may do, as in --set oidc.roles.ota-admins=admin" }}
{{- end }}
{{- if and .Values.oidc.existingSecret (not .Values.oidc.clientId) }}
{{- $wrong = append $wrong "oidc.clientId is missing: oidc.existingSecret holds the secret of a client, as in --set oidc.clientId=paperminder-ota" }}
{{- end }}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) }}
{{- $wrong = append $wrong "httpRoute.parentRefs is missing: the Gateway to hang it on, as in --set httpRoute.parentRefs[0].name=public --set httpRoute.parentRefs[0].namespace=gateways" }}
{{- end }}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) }}
{{- $wrong = append $wrong "ingress.hosts is missing: an Ingress without a host takes everybody's requests. Name it, as in --set ingress.hosts[0]=ota.example.com" }}
{{- end }}
{{- with .Values.externalSecrets }}
{{- if .enabled }}
{{- if not .storeRef.name }}
{{- $wrong = append $wrong "externalSecrets.storeRef.name is missing: the store that the secrets come from, as in --set externalSecrets.storeRef.name=aws" }}
{{- end }}
{{- if not .secrets }}
{{- $wrong = append $wrong "externalSecrets.secrets is empty: say what to make, as in --set externalSecrets.secrets.ota-database.password.key=prod/ota/database" }}
{{- end }}
{{- if eq $.Values.migrations.mode "hook" }}
{{- $wrong = append $wrong "externalSecrets makes its Secrets together with everything else, but migrations.mode=hook runs before and would wait for them for ever: set --set migrations.mode=job" }}
{{- end }}
{{- end }}
{{- end }}
{{- $taken := include "paperminder-ota.taken" . | fromYaml }}
{{- range $name, $value := .Values.settings }}
{{- with get $taken $name }}
{{- $wrong = append $wrong (printf "settings.%s is set by the chart: use %s instead" $name .) }}
{{- end }}
{{- end }}
{{- if $wrong }}
{{- fail (printf "\n\nThese values cannot be:\n\n- %s\n" (join "\n\n- " $wrong)) }}
{{- end }}
{{- end }}
