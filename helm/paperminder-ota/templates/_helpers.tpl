{{- define "paperminder-ota.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /* 46 characters at most, so that `-migrate-` and a checksum keep within the 63 of a Job's name. */ -}}
{{- define "paperminder-ota.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 46 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 46 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 46 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "paperminder-ota.selectorLabels" -}}
app.kubernetes.io/name: {{ include "paperminder-ota.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* Of (dict "root" $ "component" "…"). */ -}}
{{- define "paperminder-ota.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "paperminder-ota.selectorLabels" .root }}
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: paperminder-ota
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* Of pods: nothing that changes with the chart alone, so that a new chart moves no socket. */ -}}
{{- define "paperminder-ota.podLabels" -}}
{{ include "paperminder-ota.selectorLabels" .root }}
app.kubernetes.io/component: {{ .component }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "paperminder-ota.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "paperminder-ota.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "paperminder-ota.image" -}}
{{- with .Values.image }}
{{- if .digest }}
{{- printf "%s@%s" .repository .digest }}
{{- else }}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "paperminder-ota.baseUrl" -}}
{{- if .Values.baseUrl }}
{{- .Values.baseUrl | trimSuffix "/" }}
{{- else if and .Values.httpRoute.enabled .Values.httpRoute.hostnames }}
{{- printf "https://%s" (first .Values.httpRoute.hostnames) }}
{{- else if and .Values.ingress.enabled .Values.ingress.hosts }}
{{- printf "%s://%s" (ternary "https" "http" (not (empty .Values.ingress.tls))) (first .Values.ingress.hosts) }}
{{- else }}
{{- printf "http://%s.%s.svc:%v" (include "paperminder-ota.fullname" .) .Release.Namespace .Values.service.port }}
{{- end }}
{{- end }}

{{- /* The server lets go of 250 sockets a second at most, so a full replica may need longer than drainSeconds. */ -}}
{{- define "paperminder-ota.gracePeriod" -}}
{{- $atPace := div (add (int64 .Values.maxPrinters) 249) 250 }}
{{- with .Values.shutdown }}
{{- add (int64 .preStopSleepSeconds) (max (int64 .drainSeconds) $atPace) (int64 .transferSeconds) (int64 .marginSeconds) }}
{{- end }}
{{- end }}

{{- define "paperminder-ota.maxReplicas" -}}
{{- ternary .Values.autoscaling.maxReplicas .Values.replicaCount .Values.autoscaling.enabled | int64 }}
{{- end }}

{{- /* Of (dict "root" $ "live" <the Deployment in the cluster>): what it has, within the autoscaler's bounds; nothing for one that
is not there, or when nobody can look, as in `helm template`. */ -}}
{{- define "paperminder-ota.autoscaledReplicas" -}}
{{- if .live }}
{{- with .root.Values.autoscaling }}
{{- min (max (int64 $.live.spec.replicas) (int64 .minReplicas)) (int64 .maxReplicas) }}
{{- end }}
{{- end }}
{{- end }}

{{- /* All replicas, the surplus one of an upgrade, and two for a migration and garbage. */ -}}
{{- define "paperminder-ota.databaseConnections" -}}
{{- add (mul (add (include "paperminder-ota.maxReplicas" . | int64) 1) (add (int64 .Values.database.poolSize) 1)) 2 }}
{{- end }}

{{- define "paperminder-ota.migrationsUser" -}}
{{- default .Values.database.user .Values.migrations.user }}
{{- end }}

{{- /* `urlquery` writes a space as a plus, which is one only behind the question mark. */ -}}
{{- define "paperminder-ota.urlPart" -}}
{{- . | urlquery | replace "+" "%20" }}
{{- end }}

{{- /* No secret: the password stands in a file. Of (dict "root" $ "user" "…"). */ -}}
{{- define "paperminder-ota.databaseUrl" -}}
{{- with .root.Values.database }}
{{- printf "postgres://%s@%s:%v/%s?sslmode=%s" (include "paperminder-ota.urlPart" $.user) .host .port (include "paperminder-ota.urlPart" .name) .sslMode }}
{{- if .caSecret }}&sslrootcert=/etc/paperminder/database-ca/ca.crt{{ end }}
{{- end }}
{{- end }}

{{- define "paperminder-ota.secretVolume" -}}
- name: {{ .name }}
  secret:
    secretName: {{ .secret }}
    defaultMode: 0440
    items:
      - key: {{ .key }}
        path: {{ .path }}
{{- end }}

{{- /* Of (dict "root" $ "secret" "…" "key" "…"): the password, and the CA. */ -}}
{{- define "paperminder-ota.databaseVolumes" -}}
{{ include "paperminder-ota.secretVolume" (dict "name" "database" "secret" .secret "key" .key "path" "password") }}
{{- with .root.Values.database.caSecret }}
{{ include "paperminder-ota.secretVolume" (dict "name" "database-ca" "secret" . "key" $.root.Values.database.caKey "path" "ca.crt") }}
{{- end }}
{{- end }}

{{- define "paperminder-ota.databaseMounts" -}}
- name: database
  mountPath: /etc/paperminder/database
  readOnly: true
{{- if .Values.database.caSecret }}
- name: database-ca
  mountPath: /etc/paperminder/database-ca
  readOnly: true
{{- end }}
{{- end }}

{{- /* Static keys of S3, if any. The SDK of AWS reads them from the environment. */ -}}
{{- define "paperminder-ota.s3Env" -}}
{{- with .Values.s3 }}
{{- if .existingSecret }}
- name: AWS_ACCESS_KEY_ID
  valueFrom:
    secretKeyRef:
      name: {{ .existingSecret }}
      key: {{ .accessKeyIdKey }}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom:
    secretKeyRef:
      name: {{ .existingSecret }}
      key: {{ .secretAccessKeyKey }}
{{- end }}
{{- end }}
{{- end }}

{{- /* The restricted Pod Security Standard. */ -}}
{{- define "paperminder-ota.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "paperminder-ota.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "paperminder-ota.placement" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.schedulerName }}
schedulerName: {{ . }}
{{- end }}
{{- end }}
