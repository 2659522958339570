{{- /* The pod of a migration. It stands alone: as a hook it runs before everything else of the release. */ -}}
{{- define "paperminder-ota.migratePod" -}}
{{- $user := include "paperminder-ota.migrationsUser" . }}
{{- if eq .Values.migrations.mode "hook" }}
serviceAccountName: {{ include "paperminder-ota.fullname" . }}-migrate
{{- else }}
serviceAccountName: {{ include "paperminder-ota.serviceAccountName" . }}
{{- end }}
automountServiceAccountToken: false
enableServiceLinks: false
restartPolicy: Never
{{- with include "paperminder-ota.placement" . | trim }}
{{ . }}
{{- end }}
securityContext:
  {{- include "paperminder-ota.podSecurityContext" . | nindent 2 }}
containers:
  - name: migrate
    image: {{ include "paperminder-ota.image" . }}
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    {{- if ne $user .Values.database.user }}
    args: [migrate, --grant-to, {{ .Values.database.user | quote }}]
    {{- else }}
    args: [migrate]
    {{- end }}
    env:
      - name: DATABASE_URL
        value: {{ include "paperminder-ota.databaseUrl" (dict "root" . "user" $user) | quote }}
      - name: DATABASE_PASSWORD_FILE
        value: /etc/paperminder/database/password
      - name: LOG_FORMAT
        value: json
    securityContext:
      {{- include "paperminder-ota.securityContext" . | nindent 6 }}
    resources:
      {{- toYaml .Values.migrations.resources | nindent 6 }}
    volumeMounts:
      {{- include "paperminder-ota.databaseMounts" . | nindent 6 }}
volumes:
  {{- if .Values.migrations.existingSecret }}
  {{- include "paperminder-ota.databaseVolumes" (dict "root" . "secret" .Values.migrations.existingSecret "key" .Values.migrations.passwordKey) | nindent 2 }}
  {{- else }}
  {{- include "paperminder-ota.databaseVolumes" (dict "root" . "secret" .Values.database.existingSecret "key" .Values.database.passwordKey) | nindent 2 }}
  {{- end }}
{{- end }}
